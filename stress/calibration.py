"""How often Paceline's verdicts are wrong, measured: `python stress/calibration.py` (about 5 minutes on 2 cores).

Four parts, written to results/calibration.json with machine and versions as they come:

1. A/A verdicts on real scores: contestants that are one contestant of results/race/default.json, its deviations from
   its own mean shuffled over the seeds with random signs. Every winner is false.
2. Planted effects: how often the sign-flip verdict finds them, against what `power` declares.
3. Coverage of the two intervals on simulated seeds x items.
4. A/A races: `ema` against `ema(dims=16)`, its default, so two names of one mixer with starts of their own.

Ctrl-C loses nothing finished: what was measured is in the file, and the same command goes on with the races where it
stopped. `--races 0` leaves them out.
"""

import argparse
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from paceline.core.files import write_json
from paceline.core.seeds import derive
from paceline.data.recall import Recall
from paceline.race.contestant import Event, Job, Model, Outcome, Report

if __name__ != "__mp_main__":  # a cell's process wants `Numbered` alone, and loading the rest would take it longest
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table
    from scipy import stats

    from paceline.race.result import environment
    from paceline.race.run import race
    from paceline.race.statistics import ALPHA, compare, hierarchical_interval, mean_interval, power, sign_flip

ROOT = Path(__file__).parents[1]
SCORES = ROOT / "results" / "race" / "default.json"
RATE = 2e-2
Watch = Callable[[Iterable[int], str], Iterable[int]]
"""Shows progress over rounds, under a name."""


def share(count: int, rounds: int) -> dict[str, Any]:
    """A share with its exact (Clopper-Pearson) 95 % interval."""
    found = stats.binomtest(count, rounds)
    interval = found.proportion_ci(confidence_level=0.95, method="exact")
    return {"count": count, "of": rounds, "share": count / rounds, "interval": [interval.low, interval.high]}


def columns(result: dict[str, Any]) -> list[list[float]]:
    """The scores over seeds of every contestant on every task that finished them all."""
    cells = [c for c in result["cells"] if c["status"] == "done"]
    keys = dict.fromkeys((c["task"], c["contestant"]) for c in cells)
    scores = [[c["score"] for c in cells if (c["task"], c["contestant"]) == key] for key in keys]
    return [column for column in scores if len(column) == len(result["seeds"])]


def twins(
    column: Sequence[float], contestants: int, seeds: int, rng: np.random.Generator
) -> dict[str, dict[int, float]]:
    """Contestants that differ by chance alone: one contestant's deviations, shuffled and with random signs.

    Each is turned on by one seed, so that no two have the same deviation on a seed: a tie decides nothing.
    """
    mean = float(np.mean(column))
    shuffled = rng.permutation(column) - mean
    deviations = [np.roll(shuffled, turn)[:seeds] for turn in range(contestants)]
    rows = [(mean + d * rng.choice([-1.0, 1.0], seeds)).tolist() for d in deviations]
    return {f"twin {i}": dict(enumerate(row)) for i, row in enumerate(rows)}


def aa_verdicts(result: dict[str, Any], contestants: int, seeds: int, verdicts: int, watch: Watch) -> dict[str, Any]:
    """Half of part 1: share of A/A events with any winner, and what it would be without Holm's adjustment."""
    rng = np.random.default_rng(derive(0, "resampled", contestants))
    scores, false, careless = columns(result), 0, 0
    for _ in watch(range(verdicts), f"resampled, {contestants} contestants"):
        found = compare(twins(scores[rng.integers(len(scores))], contestants, seeds, rng))
        false += any(c.resolved for c in found)
        careless += any(c.p <= ALPHA for c in found)
    return {
        "contestants": contestants, "seeds": seeds,
        "false_winners": share(false, verdicts), "without_holm": share(careless, verdicts),
    }  # fmt: skip


def resampled(result: dict[str, Any], verdicts: int, watch: Watch) -> Iterator[list[dict[str, Any]]]:
    """Part 1: two contestants and four, each on the fewest seeds that can decide."""
    rows: list[dict[str, Any]] = []
    for contestants, seeds in ((2, 6), (4, 8)):
        rows.append(aa_verdicts(result, contestants, seeds, verdicts, watch))
        yield rows


class Numbered(Model):
    """A model whose seeds are those of race number `number`: every race counts its own from 0."""

    def __init__(self, spec: str, number: int) -> None:
        super().__init__(spec, layers=1, rates=(RATE,))
        self.number = number

    def identity(self) -> list[object]:
        """See `Contestant.identity`."""
        return [*super().identity(), self.number]

    def run(self, job: Job, report: Report) -> Outcome:
        """See `Contestant.run`."""
        return super().run(replace(job, seed=derive(job.seed, "race", self.number), model_folder=None), report)


def races(count: int, out: Path, watch: Watch) -> Iterator[dict[str, Any]]:
    """Part 4: share of A/A races with a winner, so far."""
    task = Recall(pairs=1, keys=4, values=4, stretch=0, queries=2)  # half learned in 32 steps, so that scores vary
    task.items = 64
    event = Event(task, tokens=32 * 16 * task.length, parameters=3000, batch=16)
    false = 0
    differences: list[float] = []
    for number in watch(range(count), "races"):
        entrants = [Numbered("ema", number), Numbered("ema(dims=16)", number)]
        result = race(entrants, [event], out=out / f"{number:03d}", seeds=6)
        (found,) = result["comparisons"]["recall"]
        assert found["seeds"] == 6, "a cell failed"
        false += found["verdict"] != "not resolved"
        differences.append(found["difference"])
        shutil.rmtree(out / f"{number:03d}" / "models", ignore_errors=True)
        yield {"seeds": 6, "false_winners": share(false, len(differences)), "differences": differences}


MIXES: dict[str, tuple[float, float, float, str]] = {
    "seeds vary": (1.0, 0.0, 1.0, "normal"),
    "both vary": (0.3, 1.0, 1.0, "normal"),
    "items vary": (0.1, 1.0, 0.5, "normal"),
    "neither varies": (0.0, 0.0, 1.0, "normal"),
    "seeds vary little": (0.1, 0.0, 1.0, "normal"),
    "items are exponential": (0.1, 1.0, 0.5, "exponential"),
    "items are log-normal": (0.1, 1.0, 0.5, "lognormal"),
    "both vary, answers are 0 or 1": (0.0, 0.0, 0.0, "binary"),
}
"""Standard deviations of seeds, items and rest, and the items' distribution."""
ADVANTAGE = 0.1


def crossed(mix: tuple[float, float, float, str], seeds: int, items: int, rng: np.random.Generator) -> np.ndarray:
    """Differences, seeds x items, whose true mean is 0."""
    of_seed, of_item, of_rest, law = mix
    if law == "binary":  # right or wrong, by the item's easiness, the seed's luck and the contestant's advantage
        easy = rng.uniform(0.3, 0.7, items)
        luck = rng.uniform(-0.1, 0.1, (2, seeds, 1))
        right = rng.random((2, seeds, items)) < np.stack((easy + ADVANTAGE + luck[0], easy + luck[1]))
        return right[0] * 1.0 - right[1] - ADVANTAGE
    item = {
        "normal": lambda: rng.standard_normal(items),
        "exponential": lambda: rng.exponential(size=items) - 1,
        "lognormal": lambda: (rng.lognormal(size=items) - np.exp(0.5)) / np.sqrt(np.e**2 - np.e),
    }[law]()
    return of_seed * rng.standard_normal((seeds, 1)) + of_item * item + of_rest * rng.standard_normal((seeds, items))


def coverage(rounds: int, watch: Watch) -> Iterator[list[dict[str, Any]]]:
    """Part 3: share of intervals that hold the true mean; nominal is 95 %.

    `mean_interval` of the seeds' means is beside it: right for these items, too narrow for others like them.
    """
    cases = [(name, s, i) for s in (6, 8, 12) for i in (20, 128, 500) for name in MIXES]
    rows: list[dict[str, Any]] = []
    for index in watch(range(len(cases)), "coverage"):
        name, seeds, items = cases[index]
        rng = np.random.default_rng(derive(0, "coverage", name, seeds, items))
        both = only_seeds = 0
        for _ in range(rounds):
            data = crossed(MIXES[name], seeds, items, rng)
            low, high = hierarchical_interval(data)
            both += low <= 0 <= high
            low, high = mean_interval(data.mean(1).tolist())
            only_seeds += low <= 0 <= high
        rows.append({
            "mix": name, "seeds": seeds, "items": items,
            "hierarchical": share(both, rounds), "mean": share(only_seeds, rounds),
        })  # fmt: skip
        yield rows


def planted(rounds: int, watch: Watch) -> Iterator[list[dict[str, Any]]]:
    """Part 2: share of effects found by the sign-flip test at ALPHA / pairs, beside the power declared."""
    cases = [(1, n, e) for n in (6, 7, 8, 12) for e in (0.8, 1.2, 1.8)]
    cases += [(6, n, e) for n in (8, 9, 10, 12) for e in (0.8, 1.2, 1.8)]
    rows: list[dict[str, Any]] = []
    for index in watch(range(len(cases)), "planted effects"):
        pairs, seeds, effect = cases[index]
        rng = np.random.default_rng(derive(0, "planted", *map(str, cases[index])))
        drawn = rng.normal(effect, 1, (rounds, seeds)).tolist()
        found = sum(sign_flip(row) <= ALPHA / pairs for row in drawn)
        declared = power(effect, 1.0, seeds, pairs)
        rows.append({"pairs": pairs, "seeds": seeds, "effect_over_sd": effect, "declared": declared,
                     "found": share(found, rounds)})  # fmt: skip
        yield rows


def lines(facts: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What the table says: measure, what was declared, what was found."""

    def said(found: dict[str, Any]) -> str:
        low, high = found["interval"]
        return f"{found['share']:.1%} ({low:.1%} to {high:.1%}) of {found['of']:,}"

    for row in facts.get("resampled", []):
        name = f"false winners, real scores, {row['contestants']} contestants, {row['seeds']} seeds"
        yield name, "5 % at most", said(row["false_winners"])
        yield "    the same without Holm", "", said(row["without_holm"])
    if "races" in facts:
        yield "false winners, races of 2, 6 seeds", "5 % at most", said(facts["races"]["false_winners"])
    rows = facts.get("coverage", [])
    for name in MIXES if rows else ():
        for kind in ("hierarchical", "mean"):
            found = sorted((r[kind]["share"], r["seeds"], r["items"]) for r in rows if r["mix"] == name)
            if not found:  # stopped before it
                continue
            low, high = found[0], found[-1]
            said_of = f"{low[0]:.1%} ({low[1]} x {low[2]}) to {high[0]:.1%} ({high[1]} x {high[2]})"
            yield f"coverage of {kind}_interval, {name}", "95 %", said_of
    for row in facts.get("planted", []):
        name = f"effect of {row['effect_over_sd']} sd, pairs: {row['pairs']}, seeds: {row['seeds']}"
        yield name, f"{row['declared']:.1%}", said(row["found"])


def main() -> None:
    """Run the parts, write each, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verdicts", type=int, default=2000, help="resampled A/A verdicts of each kind")
    parser.add_argument("--races", type=int, default=100, help="A/A races")
    parser.add_argument("--rounds", type=int, default=600, help="simulations of each case of parts 2 and 3")
    parser.add_argument("--cells", type=Path, default=ROOT / "runs" / "calibration", help="folder of the races")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "calibration.json", help="file of the figures")
    given = parser.parse_args()
    console = Console()

    def watch(rounds: Iterable[int], name: str) -> Iterable[int]:
        return track(rounds, name, console=console, transient=True, disable=not console.is_terminal)

    result = json.loads(SCORES.read_text(encoding="utf-8"))
    parts: dict[str, Iterable[Any]] = {
        "resampled": resampled(result, given.verdicts, watch),
        "planted": planted(given.rounds, watch),
        "coverage": coverage(given.rounds, watch),
        "races": races(given.races, given.cells, watch),
    }
    facts: dict[str, Any] = {"environment": environment(), "alpha": ALPHA}
    try:
        for name, part in parts.items():
            for facts[name] in part:  # so far
                write_json(given.out, facts)
    except KeyboardInterrupt:
        console.print("Stopped. What is finished is kept, and the same command goes on with the races.")
    table = Table("measured", "declared", "found (95 % interval)")
    for line in lines(facts):
        table.add_row(*line)
    console.print(table)


if __name__ == "__main__":
    main()
