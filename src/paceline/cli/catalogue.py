"""`paceline list` and `paceline show`: answered from cards and result files, without importing torch."""

import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from paceline.core.card import Card
from paceline.core.discovery import cards, find
from paceline.core.kinds import base
from paceline.core.marks import MARKS, verdicts

YES, NO, OPEN = "yes", "no", "-"


def print_list(families: list[str], as_json: bool) -> None:
    """Every method of these families (all, where none is named)."""
    known = [card for family in families for card in cards(family)] if families else cards()
    rows = [_facts(card) for card in known]
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    lines = [line for row in rows for line in _lines(row)]
    names = ("family", "method", "arXiv", "paper", *MARKS, "effect")
    widths = [max(map(len, column)) for column in zip(names, *lines, strict=True)]
    console = Console()
    if not console.is_terminal:  # another program reads: nothing is cut
        console.width = sum(widths) + 2 * len(widths)
    room = console.width - sum(widths) + widths[3] + widths[-1] - 2 * len(widths)
    effect = min(widths[-1], max(room // 2, 8))  # titles and effects may shrink
    limits = {"paper": max(room - effect, 5), "effect": effect}
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, width in zip(names, widths, strict=True):
        width = min(width, limits.get(name, width))
        table.add_column(name, no_wrap=True, min_width=width, max_width=width, overflow="ellipsis")
    for line in lines:
        table.add_row(*map(_plain, line))
    console.print(table)


def _lines(row: dict[str, Any]) -> list[tuple[str, ...]]:
    """A line for each paper; the first has the method's name, marks and effect."""
    head, marks = (row["family"], row["method"]), [_word(row["marks"][mark]) for mark in MARKS]
    papers = [(paper["arxiv"] or OPEN, paper["title"]) for paper in row["papers"]]
    first = (*head, *papers[0], *marks, row["effect"] or OPEN)
    return [first, *(("", "", *paper, *[""] * (len(MARKS) + 1)) for paper in papers[1:])]


def print_method(method: str, as_json: bool) -> None:
    """One method's card, marks, and how to use it."""
    family, name = find(method)
    card = next(card for card in cards(family) if card.method == name)
    facts = {**_facts(card), "docstring": card.docstring, "use": _uses(card)}
    if as_json:
        print(json.dumps(facts, indent=1))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"[bold]{name}[/bold] ({family})\n")
    console.print(card.docstring, markup=False)
    console.print()
    for paper in facts["papers"]:
        place = f"arXiv {paper['arxiv']}, " if paper["arxiv"] else ""
        console.print(f"{paper['title']} ({place}{paper['year']})", markup=False)
        if paper["says"]:
            console.print(f"  says: {paper['says']}", markup=False)
    marks = ", ".join(f"{mark} {_word(facts['marks'][mark])}" for mark in MARKS)
    console.print(f"\nMarks: {marks}; effect: {facts['effect'] or 'not measured by a claim yet'}", markup=False)
    console.print("Use:", *facts["use"], sep="\n  ", markup=False)


def _facts(card: Card) -> dict[str, Any]:
    verdict = verdicts(card)
    return {
        "family": card.family,
        "method": card.method,
        "summary": card.summary,
        "papers": [{"title": p.title, "arxiv": p.arxiv, "year": p.year, "says": p.says} for p in card.papers],
        "marks": verdict.marks,
        "effect": verdict.effect,
    }


def _uses(card: Card) -> list[str]:
    lines = []
    if card.family == "mixers":
        lines += [
            f"paceline race {card.method} attention --text mine.txt",
            f"paceline train {card.method} --text mine.txt --out DIR",
        ]
    if card.family == "data" and base("data", card.method) == "Selector":
        lines.append(f"paceline select FOLDER --target TEXT --keep 0.1 --out FILE.jsonl --by {card.method}")
    elif card.family == "data" and card.method != "text":
        lines.append(f"paceline race seqboat attention --task {card.method}")
    if card.family == "optim":
        lines.append(f"paceline race adamw {card.method} --text mine.txt")
    if card.family == "adapt":
        rival = "full" if card.method == "lora" else "lora"
        lines.append(f"paceline race {card.method} {rival} --on-model smollm2 --text mine.txt --keep DIR")
    if card.family == "objectives":
        lines.append(f"paceline train seqboat --objective {card.method} --text mine.txt --out DIR")
    if card.family == "align":
        what = "--preferences FILE.jsonl" if base("align", card.method) == "Pairwise" else "--reward FILE.py:FUNCTION"
        lines.append(f"paceline align MODEL --with {card.method} {what} --out DIR")
    if card.family == "evaluate":
        lines.append(f"paceline evaluate smollm2 --with {card.method} --lengths 512,1024,2048")
    if card.family == "retrieve":
        lines.append(f'paceline search FOLDER "QUERY" --with {card.method}')
    if card.family == "tokens" and card.method != "byte_ensemble":
        lines.append(f"paceline generate smollm2 --decode {card.method} --prompt 'The capi'")
    if card.family in ("decode", "context", "compress"):
        lines += [
            f"paceline generate smollm2 --decode {card.method} --prompt 'The '",
            f"paceline race greedy {card.method} --on-model smollm2",
        ]
    return [*lines, f"python: import paceline.{card.family}.{card.method}"]


def _word(mark: bool | None) -> str:
    return OPEN if mark is None else YES if mark else NO


def _plain(text: str) -> str:
    return text.replace("[", r"\[")
