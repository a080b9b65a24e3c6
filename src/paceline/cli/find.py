"""`paceline find`: methods for a problem, from what the house says of itself: cards, papers, claims and verdicts.

Ranked by words (BM25 over short texts, no library), which takes 0.1 s and imports no torch. `--dense` merges in a
ranking by meaning (MiniLM), by the sum of 1 / (60 + rank) over both, which takes as long as importing torch does.
"""

import ast
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rich.console import Console
from rich.text import Text

from paceline.core.card import Card
from paceline.core.discovery import PACKAGE, cards
from paceline.core.errors import PacelineError
from paceline.core.kinds import base
from paceline.core.marks import read_verdict, results_folder
from paceline.report.words import shorten, visible

K1, B, SMOOTHING = 1.2, 0.75, 60
LONGEST = 2**14
SHOWN = 400
"""Characters of what a paper says, and of what was found."""
COMMON = (
    "a an and are as at be but by can do does for from has have how i if in into is it its me my no not of on or our "
    "so than that the their them then there these they this to too use want was we what when where which while who "
    "why will with you your method methods model models paper papers"
)
STOP = frozenset(COMMON.split())
ALIKE = (
    "slow fast faster speed latency quick call", "forget remember memory recall forgotten", "long length context far",
    "memory byte cache state small", "repeat repetition degenerate diverse", "bit quantise compress weight small",
    "steer control style guide attribute", "search retrieve query document passage", "accurate quality wrong predict",
)  # fmt: skip
"""Words of which one in the problem finds the others, at a part of their worth."""
WORTH = 0.4
MATTERS = {"data": 0.6}
"""Tasks measure models; they mend none."""


@dataclass(frozen=True)
class Entry:
    """A method as it can be found."""

    family: str
    method: str
    summary: str
    says: tuple[str, ...]
    claim: str
    verdict: str
    effect: str
    text: str
    """All that is known of it in words, what matters most said twice."""


def run(problem: str, k: int, dense: bool, as_json: bool) -> None:
    """Print the `k` methods nearest to a problem."""
    if not problem.strip():
        raise PacelineError("The problem is empty: say in a few words what the model does badly.")
    if len(problem) > LONGEST:
        raise PacelineError(f"The problem has {len(problem):,} characters: say it in {LONGEST:,} at most.")
    if k < 1:
        raise PacelineError(f"-k must be at least 1, not {k}.")
    entries = known()
    ranking = by_words(problem, entries)
    if dense:
        ranking = merged(ranking, by_meaning(problem, entries))
    found = [entries[number] for number in ranking[:k]]
    if as_json:
        print(json.dumps([_facts(entry) for entry in found], indent=1))
        return
    _print(found)


def known() -> list[Entry]:
    """Every method and claim of the house, in its order. Imports none of them."""
    parts = {(card.family, card.method): card for card in cards()}
    claimed = {(path.parent.name, path.stem): path for path in sorted((PACKAGE / "claims").glob("*/[!_]*.py"))}
    found = []
    for family, method in (*parts, *(place for place in claimed if place not in parts)):
        card, path = parts.get((family, method)), claimed.get((family, method))
        tree = None if path is None else ast.parse(path.read_text(encoding="utf-8"))
        found.append(_entry(family, method, card, tree))
    return found


def _entry(family: str, method: str, card: Card | None, claim: ast.Module | None) -> Entry:
    docstring = card.docstring if card else ast.get_docstring(claim) or method if claim else method
    papers = card.papers if card else ()
    says = tuple(paper.says for paper in papers if paper.says)
    statement = "" if claim is None else _claim(claim)
    stored = read_verdict(results_folder() / family / f"{method}.json")
    verdict, effect = (stored["verdict"], stored["effect"]) if stored else ("not measured", "")
    titles = " ".join(paper.title for paper in papers)
    summary = docstring.splitlines()[0]
    twice = " ".join((method.replace("_", " "), family, summary, titles, *says))
    return Entry(family, method, summary, says, statement, verdict, effect, f"{twice} {twice} {docstring} {statement}")


def _claim(tree: ast.Module) -> str:
    """The literal CLAIM of a claim's module, without running it."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "CLAIM" for t in node.targets):
            value = ast.literal_eval(node.value)
            return value if isinstance(value, str) else ""
    return ""


def by_words(problem: str, entries: Sequence[Entry]) -> list[int]:
    """Numbers of the entries that share a word with the problem, best first."""
    counts = [Counter(stems(entry.text)) for entry in entries]
    sizes = [sum(count.values()) for count in counts]
    mean = sum(sizes) / max(1, len(sizes))
    held = Counter(word for count in counts for word in count)
    wanted = _wanted(problem)
    scores = []
    for entry, count, size in zip(entries, counts, sizes, strict=True):
        score = 0.0
        for word, worth in wanted.items():
            if word in count:
                rarity = math.log(1 + (len(counts) - held[word] + 0.5) / (held[word] + 0.5))
                score += worth * rarity * count[word] / (count[word] + K1 * (1 - B + B * size / mean))
        scores.append(score * MATTERS.get(entry.family, 1.0))
    return sorted((i for i, score in enumerate(scores) if score > 0), key=lambda i: -scores[i])


def _wanted(problem: str) -> dict[str, float]:
    """The problem's words, and at less worth those that mean the same."""
    words = stems(problem)
    related = (word for group in map(stems, ALIKE) if set(group) & set(words) for word in group)
    return {**dict.fromkeys(related, WORTH), **dict.fromkeys(words, 1.0)}


def by_meaning(problem: str, entries: Sequence[Entry]) -> list[int]:
    """Numbers of all entries by MiniLM, best first."""
    from paceline.retrieve.dense import Dense

    search = Dense()
    search.index([" ".join((entry.summary, *entry.says)) for entry in entries])
    ids: list[int] = search.search([problem], len(entries)).ids[0].tolist()
    return ids


def merged(*rankings: Sequence[int]) -> list[int]:
    """Reciprocal rank fusion: by the sum of 1 / (60 + rank)."""
    scores: Counter[int] = Counter()
    for ranking in rankings:
        for rank, number in enumerate(ranking, 1):
            scores[number] += 1 / (SMOOTHING + rank)  # type: ignore[assignment]
    return sorted(scores, key=lambda number: -scores[number])


def stems(text: str) -> list[str]:
    """Words in lower case without their endings, so that `forgets` finds `forgetting`; common ones left out."""
    return [_stem(word) for word in re.findall(r"[a-z0-9]+", text.lower()) if word not in STOP]


@cache
def _stem(word: str) -> str:
    for ending in ("ings", "ing", "ies", "ied", "ed", "es", "ers", "er", "s", "ly", "e", "y"):
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            word = word.removesuffix(ending)
            break
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


def _facts(entry: Entry) -> dict[str, Any]:
    return {
        "family": entry.family, "method": entry.method, "summary": entry.summary, "says": list(entry.says),
        "claim": entry.claim, "verdict": entry.verdict, "effect": entry.effect, "try": how_to_try(entry),
    }  # fmt: skip


def how_to_try(entry: Entry) -> str:
    """A command that uses the method, or puts its claim to the test."""
    commands = {
        "mixers": f"paceline race {entry.method} attention --text mine.txt",
        "optim": f"paceline race adamw {entry.method} --text mine.txt",
        "adapt": f"paceline race base {entry.method} --on-model smollm2 --text mine.txt --keep DIR",
        "objectives": f"paceline train seqboat --objective {entry.method} --text mine.txt --out DIR",
        "align": f"paceline align MODEL --with {entry.method} --out DIR",
        "evaluate": f"paceline evaluate smollm2 --with {entry.method}",
        "decode": f"paceline race greedy {entry.method} --on-model smollm2",
        "context": f"paceline race greedy {entry.method} --on-model smollm2",
        "compress": f"paceline race greedy {entry.method} --on-model smollm2",
        "data": f"paceline race seqboat attention --task {entry.method}",
        "tokens": f"paceline generate smollm2 --decode {entry.method} --prompt 'The capi'",
        "retrieve": f'paceline search FOLDER "QUERY" --with {entry.method}',
    }
    if (PACKAGE / entry.family / f"{entry.method}.py").is_file():
        if base(entry.family, entry.method) == "Selector":
            return f"paceline select FOLDER --target TEXT --keep 0.1 --out FILE.jsonl --by {entry.method}"
        return commands.get(entry.family, f"paceline show {entry.method}")
    return f"paceline claim {entry.method}"


def _print(found: Sequence[Entry]) -> None:
    console = Console(highlight=False)
    if not found:
        console.print("No method says a word of it: try other words, or --dense; `paceline list` shows all.")
    for rank, entry in enumerate(found, 1):
        console.print(
            Text.assemble(f"{rank}. ", (entry.method, "bold"), f" ({entry.family}): {entry.summary}"), soft_wrap=True
        )
        lines = [f"says: {says}" for says in entry.says[:1]]
        lines.append(f"found: {entry.effect}" if entry.effect else "found: not measured by a claim yet")
        lines.append(f"try: {how_to_try(entry)}")
        for line in lines:
            console.print(Text(f"   {shorten(visible(line), SHOWN)}"), soft_wrap=True)
