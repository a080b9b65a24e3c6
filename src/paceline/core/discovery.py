"""Finding methods by file: a method exists because `<family>/<method>.py` does. There is no registry."""

import importlib
from functools import cache
from pathlib import Path
from types import ModuleType

from paceline.core.card import Card, read_card
from paceline.core.errors import PacelineError, suggest

PACKAGE = Path(__file__).parents[1]

FAMILIES = (
    "mixers", "blocks", "tokens", "objectives", "flows", "optim", "adapt", "align", "compress",
    "decode", "context", "retrieve", "prompt", "data", "parallel", "serve", "evaluate",
)  # fmt: skip


@cache
def methods(family: str) -> tuple[str, ...]:
    """The family's methods: its public modules, sorted. A family without a folder yet has none."""
    return tuple(sorted(p.stem for p in (PACKAGE / family).glob("*.py") if not p.name.startswith("_")))


def cards(family: str | None = None) -> list[Card]:
    """The cards of one family, or of all in the house's order. Imports no part.

    Raises:
        PacelineError: there is no such family.
    """
    if family is not None and family not in FAMILIES:
        known = ", ".join(FAMILIES)
        raise PacelineError(f"There is no family {family!r}; families are {known}.{suggest(family, FAMILIES)}")
    chosen = FAMILIES if family is None else (family,)
    return [read_card(PACKAGE / f / f"{m}.py") for f in chosen for m in methods(f)]


def find(method: str, family: str | None = None) -> tuple[str, str]:
    """`(family, method)` of a name, searched in one family or in all.

    Raises:
        PacelineError: the name is unknown (the nearest is suggested).
    """
    known = {m: f for f in reversed(FAMILIES if family is None else (family,)) for m in methods(f)}
    if method not in known:
        place = f"in {family}" if family else "in any family"
        near = suggest(method, known)
        raise PacelineError(f"There is no method {method!r} {place}.{near} `paceline list` shows all.")
    return known[method], method


def load(family: str, method: str) -> ModuleType:
    """Import a method's module."""
    find(method, family)
    return importlib.import_module(f"paceline.{family}.{method}")


def part(family: str, method: str) -> type:
    """The one public class that a method's module defines under its own name, e.g. `seqboat` -> `SeqBoat`."""
    module = load(family, method)
    wanted = method.replace("_", "")
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__ and name.lower() == wanted:
            return value
    raise PacelineError(f"{module.__name__} defines no class named {method!r} (written in any case).")
