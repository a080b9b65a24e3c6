"""Facts about configs: sizes are hit, and nothing written in a config.json can do more than be refused."""

import json

import pytest
import torch
from _tiny import PLANS, SEQBOAT, config
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.discovery import methods
from paceline.core.errors import PacelineError
from paceline.lm.config import Config, build, fit, mixer
from paceline.lm.decoder import count_parameters


def size(config: Config) -> int:
    with torch.device("meta"):
        return count_parameters(build(config))


def refusal(values: dict) -> str:
    with pytest.raises(PacelineError) as caught, torch.device("meta"):
        build(Config.from_dict(values))
    return str(caught.value)


@pytest.mark.parametrize("wanted", [30_000, 200_000, 2_000_000])
@pytest.mark.parametrize("method", methods("mixers"))
def test_fit_hits_the_size_for_every_mixer_there_is(method, wanted):
    fitted = fit([method] * 2, 64, wanted, "recall")
    assert size(fitted) == pytest.approx(wanted, rel=0.02)
    assert (fitted.plan, fitted.vocab_size, fitted.task) == ((method, method), 64, "recall")


@pytest.mark.parametrize("wanted", [30_000, 200_000, 2_000_000])
@pytest.mark.parametrize("plan", [PLANS["hybrid"], ("attention(heads=3)", SEQBOAT), ("ema",) * 5])
def test_fit_hits_the_size_of_a_plan(plan, wanted):
    assert size(fit(plan, 17, wanted)) == pytest.approx(wanted, rel=0.02)


def test_fit_takes_bytes_at_a_usual_size():
    assert size(fit(["attention"] * 4, 256, 200_000)) == pytest.approx(200_000, rel=0.02)


@pytest.mark.parametrize("wanted", [-5, 0, 1, 500])
def test_a_size_too_small_for_the_plan_is_refused_with_the_least(wanted):
    with pytest.raises(PacelineError, match=r"attention .* needs at least [\d,]+ parameters: ask for more"):
        fit(["attention"], 256, wanted)


@pytest.mark.parametrize(
    ("plan", "says"),
    [
        ([], "name a mixer"),
        (["atention"], "Did you mean 'attention'"),
        (["attention(heads=0)"], "heads=0"),
        (["attention", "attention(heads=7919)"], "heads=7919"),
        (["seqboat(temperature=-1.0)"], "temperature"),
        (["seqboat(value_width=-999)"], "width"),
        (["ema(dims=99999999999999999999)"], "ema"),
    ],
)
def test_fit_refuses_a_plan_that_no_width_can_build(plan, says):
    with pytest.raises(PacelineError) as caught:
        fit(plan, 17, 30_000)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fit_draws_no_random_numbers():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    fit(["seqboat"], 17, 30_000)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("hidden", [0, 24])
def test_a_config_survives_json(plan, hidden):
    saved = config(plan, hidden=hidden)
    values = json.loads(json.dumps(saved.to_dict()))
    assert values["model_type"] == "paceline"
    assert Config.from_dict(values) == saved


GOOD = config("hybrid").to_dict()


@pytest.mark.parametrize("field", ["vocab_size", "d_model", "hidden", "plan"])
def test_a_missing_field_is_named(field):
    assert field in refusal({k: v for k, v in GOOD.items() if k != field})


def test_an_unknown_field_is_named():
    assert "head_dim" in refusal({**GOOD, "head_dim": 4})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[(size, value) for size in ("vocab_size", "d_model", "hidden") for value in (-1, 2**31, True, 8.0, "8", None)],
        ("vocab_size", 0),
        ("d_model", 0),
        ("d_model", 2**31 - 1),
        *[("plan", value) for value in ([], "ema", None, 3, [3], [["ema"]], [None], {"ema": 1})],
        ("task", 5),
    ],
)
def test_a_wrong_value_is_refused(field, value):
    assert len(refusal({**GOOD, field: value})) > 20


@pytest.mark.parametrize(
    "name",
    [
        "__import__('os').system('touch hacked')",
        "ema(dims=__import__('os').system('touch hacked'))",
        "ema(**{'dims': 4})",
        "paceline.mixers.ema",
        "../mixers/ema",
        "_contract",
        "__init__",
        "Mixer",
        "ema(d_model=4)",
        "ema(dims=True)",
        "ema(dims='4')",
        "ema(dims=1e400)",
        "ema(" * 5000,
        "ema\x00",
        "",
    ],
)
def test_a_plan_is_only_ever_names_and_literals(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    refusal({**GOOD, "plan": [name]})
    assert list(tmp_path.iterdir()) == []


NAMES = st.sampled_from(["ema", "attention", "lightning", "seqboat", "nothing"])
ARGUMENTS = st.sampled_from(["dims", "heads", "window", "memory", "key_width", "value_width", "temperature"])
LITERALS = st.one_of(st.integers(-3, 40), st.integers(), st.floats(), st.booleans(), st.none()).map(repr)
SPECS = st.builds("{}({}={})".format, NAMES, ARGUMENTS, LITERALS)
LEAVES = st.one_of(st.none(), st.booleans(), st.integers(), st.integers(0, 99), st.floats(), st.text(max_size=9), SPECS)
JSON = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
FIELDS = st.sampled_from([*GOOD, "extra"])


@settings(max_examples=300, deadline=None)
@given(
    changes=st.dictionaries(FIELDS, JSON | st.lists(SPECS, max_size=3), max_size=3),
    dropped=st.sets(FIELDS, max_size=1),
)
def test_any_json_gives_a_model_or_a_sentence(changes, dropped):
    values = {k: v for k, v in {**GOOD, **changes}.items() if k not in dropped}
    try:
        with torch.device("meta"):
            lm = build(Config.from_dict(values))
    except PacelineError as error:
        assert str(error)
    else:
        assert lm.d_model == values["d_model"]


def test_a_plan_of_more_layers_than_a_race_may_have_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr("paceline.lm.config.mixer", lambda *_: pytest.fail("built"))
    assert "100,000 layers" in refusal({**GOOD, "plan": ["ema"] * 100_000})


@pytest.mark.parametrize("plan", [["ema"] * 2, ["seqboat"] * 1000, ["attention(heads=7)", "ema"]])
def test_even_the_largest_size_is_found_with_few_models(plan, monkeypatch):
    """By the count of parts built, which stands for seconds: 1,000 layers once took more than a minute."""
    built = []
    monkeypatch.setattr("paceline.lm.config.mixer", lambda *given: built.append(given) or mixer(*given))
    fitted = fit(plan, 256, 2_000_000_000)
    assert len(built) < 300
    monkeypatch.undo()
    assert size(fitted) == pytest.approx(2_000_000_000, rel=0.02)


@pytest.mark.parametrize(("layers", "parameters"), [(2, 10**12), (100_000, 10**6)])
def test_a_size_beyond_one_machine_is_refused_at_once(layers: int, parameters: int) -> None:
    with pytest.raises(PacelineError, match="more than one machine"):
        fit(["ema"] * layers, 256, parameters)
