"""Cards: where a method comes from, readable without importing it.

A part says `PAPERS = (Paper(title=..., arxiv=..., year=..., says=...),)` as a literal. `read_card` takes it
from the syntax tree, so that `paceline list` never pays for torch and never runs a part's code.
"""

import ast
import re
from dataclasses import dataclass
from pathlib import Path

from paceline.core.errors import PacelineError


@dataclass(frozen=True, kw_only=True)
class Paper:
    """A paper of the stock. `says` is the one sentence that a claim puts to the test."""

    title: str
    arxiv: str
    year: int
    says: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """The work that introduced a textbook part: a baseline, or a task."""

    title: str
    year: int
    arxiv: str = ""
    says: str = ""


@dataclass(frozen=True)
class Card:
    """What is known of a method before it is imported."""

    family: str
    method: str
    summary: str
    """First line of the module's docstring."""
    docstring: str
    papers: tuple[Paper | Source, ...]


def read_card(path: Path) -> Card:
    """The card of the method in `path`; its family is the folder, its name the stem.

    Raises:
        PacelineError: not Python, no docstring, no `PAPERS`, or not a literal tuple of `Paper` and `Source` in it.
    """
    try:
        tree = _parse(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, or NUL bytes
        raise PacelineError(f"{path} is not a Python file ({error}).") from error
    except SyntaxError as error:
        raise PacelineError(f"{path} is not valid Python: {error.msg} in line {error.lineno}.") from error
    docstring = ast.get_docstring(tree)
    if not docstring:
        raise PacelineError(f"{path} has no module docstring: say there what the method computes.")
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "PAPERS" for t in node.targets):
            return Card(path.parent.name, path.stem, docstring.splitlines()[0], docstring, _papers(node.value, path))
    raise PacelineError(f"{path} has no PAPERS before its first class: name there the paper or source of the method.")


def _parse(text: str) -> ast.Module:
    """The syntax tree up to the first class or function, where a card ends; of all where that is not Python."""
    try:
        return ast.parse(re.split(r"^(?:class|def|@)", text, maxsplit=1, flags=re.MULTILINE)[0])
    except SyntaxError:
        return ast.parse(text)


def _papers(node: ast.expr, path: Path) -> tuple[Paper | Source, ...]:
    kinds = {"Paper": Paper, "Source": Source}
    if not isinstance(node, ast.Tuple) or not node.elts:
        raise PacelineError(f"PAPERS in {path} must be a non-empty tuple.")
    papers: list[Paper | Source] = []
    for call in node.elts:
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in kinds):
            raise PacelineError(f"PAPERS in {path} may hold only Paper(...) and Source(...).")
        try:
            fields = {keyword.arg or "**": ast.literal_eval(keyword.value) for keyword in call.keywords}
            papers.append(kinds[call.func.id](*call.args, **fields))  # refuses positional arguments, whatever they are
        except (ValueError, TypeError) as error:
            raise PacelineError(f"PAPERS in {path}: {call.func.id} takes literal keywords only ({error}).") from error
    return tuple(papers)
