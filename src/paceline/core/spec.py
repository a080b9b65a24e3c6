"""Naming a method with arguments: `attention(window=128)`. Literals only, nothing is evaluated."""

import ast
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

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
    wrong = PacelineError(f"Cannot read {text[:80]!r}: write a name, or a name with literals, such as 'attention(window=128)'.")
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
        if keyword.arg is None or not isinstance(value, (int, float, str, bool, tuple, type(None))):
            raise wrong
        if isinstance(value, float) and not abs(value) < float("inf"):
            raise wrong
        arguments[keyword.arg] = value
    return Spec(node.func.id, arguments)


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
        fits = isinstance(value, kind) and not (isinstance(value, bool) and not isinstance(True, kind))
        accepts_bool = kind is bool or bool in getattr(kind, "__args__", ())
        if isinstance(value, bool) and not accepts_bool:
            fits = False
        elif isinstance(value, int) and (kind is float or float in getattr(kind, "__args__", ())):
            fits = True
        if not fits:
            wanted = getattr(kind, "__name__", None) or str(kind)
            raise PacelineError(f"{spec.name}: {name}={value!r} should be of type {wanted}.")
