"""What a verdict rests on: the code that it ran, by digest, and the versions. Reads syntax trees, imports nothing.

Parts are opened by name, so a string that names one (`"attention(window=64)"`, `"adamw"`), or a module of Paceline,
counts as an import. That takes in a few that merely share a word: better a verdict called stale than one called fresh.
"""

import ast
import hashlib
import platform
import re
from collections.abc import Iterable
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from paceline.core.discovery import FAMILIES, PACKAGE, methods

SPEC = re.compile(r"(\w+)(\(.*\))?")
VERSIONED = ("torch", "numpy", "scipy")
ASIDE = frozenset({"paceline", "paceline.core.late"})
"""What tells transformers of Paceline's models: every module imports it, and it moves no score."""


def digests(modules: Iterable[str]) -> dict[str, str]:
    """Digest of the code, docstrings and comments aside, of these modules and of all of Paceline that they open."""
    found: dict[str, str] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = _path(name)
        if name in found or name in ASIDE or path is None:
            continue
        digest, imported = _read(path)
        found[name] = digest
        waiting += imported
    return dict(sorted(found.items()))


def versions() -> dict[str, str]:
    """Of what computes; the default text comes with Python, so its version stands for that data."""
    return {"python": platform.python_version(), **{name: metadata.version(name) for name in VERSIONED}}


def stale(stored: dict[str, Any]) -> str | None:
    """Why a stored verdict no longer speaks of this code, or None where it does."""
    known: dict[str, str] = stored.get("sources", {})
    now = digests(known)
    changed = sorted(name for name in known.keys() - ASIDE if known[name] != now.get(name))
    if changed or not known:
        return "changed: " + ", ".join(name.removeprefix("paceline.") for name in changed[:3]) if changed else "unknown"
    other = [f"{name} {now}" for name, now in versions().items() if stored.get("versions", {}).get(name) != now]
    return "other versions: " + ", ".join(other) if other else None


def _path(module: str) -> Path | None:
    if module.partition(".")[0] != PACKAGE.name:
        return None
    place = PACKAGE.parent.joinpath(*module.split("."))
    return next((p for p in (place.with_suffix(".py"), place / "__init__.py") if p.is_file()), None)


@cache
def _read(path: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of a file's code, and what it opens, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported: list[str] = []
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # strings on their own are docstrings
            node.body = [s for s in body if not _is_text(s)]  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            imported += [node.value] if node.value.startswith("paceline.") else _named(node.value)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16], tuple(imported)


def _named(text: str) -> list[str]:
    """The modules of the parts that a string names, of whatever family."""
    spec = SPEC.fullmatch(text)
    return [f"paceline.{f}.{spec[1]}" for f in FAMILIES if spec[1] in methods(f)] if spec else []


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
