"""Naming a method with arguments: `attention(window=128)`. Literals only, nothing is evaluated."""

import ast
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from paceline.core.errors import PacelineError, suggest


@dataclass(frozen=True)
class Spec:
    """A method's name and its keyword arguments. `str(spec)` parses back to an equal spec."""

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())
        return f"{self.name}({inside})" if inside else self.name


def parse(text: str) -> Spec:
    """The spec written in `text`.

    Raises:
        PacelineError: it is not `name` or `name(key=literal, ...)`.
    """
    mend = "write a name, or a name with literals, such as 'attention(window=128)'"
    wrong = PacelineError(f"Cannot read {text[:80]!r}: {mend}.")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise wrong from error
    if isinstance(node, ast.Name):
        return Spec(node.id)
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise wrong
    if node.args:
        raise PacelineError(f"Arguments of {node.func.id!r} need their names, as in 'attention(window=128)'.")
    arguments: dict[str, Any] = {}
    for keyword in node.keywords:
        try:
            value = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
            raise wrong from error
        if keyword.arg is None or not _plain(value):
            raise wrong
        if keyword.arg in arguments:
            raise PacelineError(f"{node.func.id} is given {keyword.arg!r} twice: keep one.")
        arguments[keyword.arg] = value
    return Spec(node.func.id, arguments)


def summands(text: str) -> list[str]:
    """The methods joined by `+` in `text`: `int8 + lookup(guesses=8)`; all of it where it cannot be read."""
    try:
        node: ast.expr = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return [text]
    found: list[str] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        found.append(ast.unparse(node.right))
        node = node.left
    return [*found, ast.unparse(node)][::-1] if found else [text]


def check(spec: Spec, build: Callable[..., object], given: tuple[str, ...] = ()) -> None:
    """Refuse arguments that `build` does not take, or takes with another type.

    Args:
        spec: what the user wrote.
        build: the class or function that will be called.
        given: parameters that the caller fills in, and the user may not.

    Raises:
        PacelineError: an unknown argument (the nearest is suggested), or a wrong type.
    """
    takes = {n: p for n, p in inspect.signature(build).parameters.items() if n not in given}
    for name, value in spec.arguments.items():
        if name not in takes:
            known = ", ".join(takes) or "none"
            raise PacelineError(f"{spec.name} has no argument {name!r}; it takes {known}.{suggest(name, takes)}")
        kind = takes[name].annotation
        if kind is inspect.Parameter.empty or isinstance(kind, str):
            continue
        if not _fits(value, kind):
            wanted = kind.__name__ if isinstance(kind, type) else str(kind)
            raise PacelineError(f"{spec.name}: {name}={value!r} should be of type {wanted}.")


def _plain(value: object) -> bool:
    """Whether `value` is a number of 64 bits, a string, a bool, None, or a tuple of such: what `repr` writes and reads.

    Python refuses to write a whole number of thousands of digits, which its hexadecimal form may smuggle in.
    """
    if isinstance(value, tuple):
        return all(_plain(item) for item in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return math.isfinite(value) if isinstance(value, float) else isinstance(value, (str, type(None)))


def _fits(value: object, kind: Any) -> bool:
    """Whether a literal is of an annotated type. A bool is no int; an int will do for a float."""
    origin, inside = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, option) for option in inside)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in inside)
    if origin is tuple and isinstance(value, tuple) and inside[1:] == (...,):
        return all(_fits(item, inside[0]) for item in value)
    base = origin or kind
    if kind is Any or base is object or not isinstance(base, type):
        return True
    if isinstance(value, bool):
        return base is bool
    return isinstance(value, (int, float) if base is float else base)
