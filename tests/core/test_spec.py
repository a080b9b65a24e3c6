"""Facts about specs: what is written is what is read, nothing is evaluated, and wrong types are refused."""

import builtins
import os
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.core.spec import Spec, check, parse

names = st.from_regex(r"[a-z_][a-z0-9_]{0,12}", fullmatch=True).filter(
    lambda name: name.isidentifier() and not __import__("keyword").iskeyword(name)
)
plain = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=12),
)
literals = st.one_of(plain, st.lists(plain, max_size=3).map(tuple), st.lists(st.tuples(plain), max_size=2).map(tuple))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(names, st.dictionaries(names, literals, max_size=4))
def test_a_spec_reads_back_equal(name, arguments):
    spec = Spec(name, arguments)
    again = parse(str(spec))
    assert again == spec and str(again) == str(spec)
    assert [type(value) for value in again.arguments.values()] == [type(value) for value in arguments.values()]


def test_what_a_user_writes():
    assert parse("attention") == parse(" attention() ") == Spec("attention")
    assert parse("attention( window = 128, rotary=False)") == Spec("attention", {"window": 128, "rotary": False})
    assert parse("x(a=-1, b=+2.5, c='y', d=None, e=(1, 2))").arguments == {
        "a": -1, "b": 2.5, "c": "y", "d": None, "e": (1, 2),
    }  # fmt: skip


HOSTILE = [
    "__import__('os').system('true')",
    "x(a=__import__('os').system('true'))",
    "x(a=open('/etc/passwd'))",
    "x(a=[i for i in range(10)])",
    "x(a=(lambda: 1)())",
    "x(a=(y := 1))",
    "x(a=f'{print(1)}')",
    "x(**{'a': 1})",
    "x(*(1, 2))",
    "x(a=10**9)",
    "x(a=9 * 9)",
    "x(a=y)",
    "x.y(a=1)",
    "x(a=1)(b=2)",
    "x[0]",
    "print(1)",
    "x(a={'b': 1})",
    "x(a=[1])",
    "x(a=([1],))",
    "x(a=b'bytes')",
    "x(a=(b'bytes',))",
    "x(a=1j)",
    "x(a=(1j,))",
    "x(a=1e999)",
    "x(a=(1e999,))",
    "x(a=-1e999)",
    "x(a=...)",
    "x(a=1, a=2)",
    "x; y",
    "x\ny",
    "x(a=1",
    "None",
    "lambda: 0",
    "",
    "\x00",
    "x(a='\ud800')",
    "(" * 400,
    "x(a=" + "-" * 5_000 + "1)",
    "x(a=" + "9" * 10_000 + ")",
    "x(a=0x" + "f" * 5_000 + ")",
    "x(a=(-0x" + "f" * 5_000 + ",))",
    "x(a=9223372036854775808)",
]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: ascii(text[:30]))
def test_hostile_text_is_refused_in_a_sentence(text):
    with pytest.raises(PacelineError) as caught:
        parse(text)
    message = str(caught.value)
    assert len(message) < 250 and message.endswith(".")


@pytest.mark.parametrize("text", HOSTILE[:8], ids=ascii)
def test_nothing_is_evaluated(text, monkeypatch):
    def refuse(*_args, **_options):
        raise AssertionError("evaluated")

    for place, name in ((builtins, "eval"), (builtins, "exec"), (builtins, "open"), (os, "system")):
        monkeypatch.setattr(place, name, refuse)
    with pytest.raises(PacelineError):
        parse(text)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=40), st.text(alphabet="ax01.,()[]{}=*'\"\\-: \n", max_size=25)))
def test_any_text_is_a_spec_or_a_sentence(text):
    try:
        spec = parse(text)
    except PacelineError:
        return
    assert spec.name.isidentifier() and parse(str(spec)) == spec


def build(
    d_model: int,
    heads: int = 4,
    window: int | None = None,
    rate: float = 0.1,
    share: float | None = None,
    rotary: bool = True,
    kind: Literal["relu", "silu"] = "relu",
    label: str = "x",
    sizes: tuple[int, ...] = (),
    anything: Any = None,
    free=None,
) -> None:
    """Takes one argument of each type that a part may take."""


@pytest.mark.parametrize(
    "good",
    ["heads=2", "window=3", "window=None", "rate=1", "rate=0.5", "share=None", "share=2", "rotary=False",
     "kind='silu'", "label='y'", "sizes=(1, 2)", "sizes=()", "anything=1", "anything='x'", "free=1", ""],
)  # fmt: skip
def test_right_types_are_taken(good):
    check(parse(f"x({good})"), build)


@pytest.mark.parametrize(
    ("bad", "wanted"),
    [("heads=True", "int"), ("heads=2.0", "int"), ("heads='2'", "int"), ("heads=None", "int"),
     ("window=False", "int | None"), ("window=1.5", "int | None"), ("rate=True", "float"), ("rate='1'", "float"),
     ("share=True", "float | None"), ("rotary=1", "bool"), ("rotary=None", "bool"), ("label=1", "str"),
     ("label=True", "str"), ("kind='gelu'", "Literal"), ("kind=1", "Literal"), ("sizes=1", "tuple"),
     ("sizes=(1.5,)", "tuple"), ("sizes=(True,)", "tuple")],
)  # fmt: skip
def test_wrong_types_are_refused(bad, wanted):
    name, value = bad.split("=")
    with pytest.raises(PacelineError) as caught:
        check(parse(f"x({bad})"), build)
    assert str(caught.value).startswith(f"x: {name}={value} should be of type {wanted}") or "Literal" in wanted
    assert wanted in str(caught.value)


def test_an_unknown_argument_suggests_the_nearest():
    with pytest.raises(PacelineError, match=r"x has no argument 'windw'; it takes .*Did you mean 'window'\?"):
        check(parse("x(windw=3)"), build)


def test_what_the_caller_gives_is_not_the_users_to_give():
    check(parse("x(d_model=8)"), build)
    with pytest.raises(PacelineError, match="has no argument 'd_model'"):
        check(parse("x(d_model=8)"), build, given=("d_model",))
    with pytest.raises(PacelineError, match="it takes none"):
        check(parse("x(a=1)"), lambda: None)
