"""SeqBoat as an encoder on classification: ListOps and digits; on a GPU also Pathfinder and keywords, at full length.

The same EMA and gated attention unit three times, layers reading left and right in turn: on chosen tokens, on every
token in fixed chunks, and on random tokens of the same number (the sham). How much attention each task comes to is
the meter: `report/activation.py` draws it.
"""

from pathlib import Path

from paceline.claims._contract import Bar, Budget, Design
from paceline.claims.mixers import seqboat
from paceline.claims.mixers.seqboat import CHUNKS, METHOD, SHAM, random_tokens
from paceline.data.digits import Digits
from paceline.data.keywords import Keywords
from paceline.data.listops import ListOps
from paceline.data.pathfinder import Pathfinder
from paceline.race.contestant import Event, Model

CLAIM = (
    "As an encoder at equal parameters and tokens, SeqBoat is within 0.03 of accuracy of the same layer with attention "
    "in fixed chunks, on ListOps and on digits, and on ListOps it takes at least a tenth less compute."
)


def design(budget: Budget, corpora: Path) -> Design:
    """The race and its bars."""
    events = _events(budget)
    rates = (5e-3,) if budget == "smoke" else (2e-3, 5e-3, 1.2e-2)
    learnt = [event.task.name for event in events]
    return Design(
        contestants=[
            Model(METHOD, rates=rates, form="encoder"),
            Model(CHUNKS, rates=rates, form="encoder"),
            Model(METHOD, rates=rates, form="encoder", change=random_tokens),
        ],
        events=events,
        seeds=2 if budget == "smoke" else 8,
        bars=[
            *(Bar(task, METHOD, CHUNKS, by=-0.03, equal=0.03) for task in learnt),
            Bar("listops", METHOD, CHUNKS, by=0.1, measure="flops"),
        ],
        shams=[Bar(task, METHOD, SHAM) for task in learnt],
        meter="activated",
        limits="Expressions of 24 tokens and images of 64, two layers, 30,000 parameters: Pathfinder and raw speech "
        "are not learned within minutes on a CPU, and nothing here is as long as the chunks are meant for.",
    )


def _events(budget: Budget) -> list[Event]:
    listops, digits = ListOps(length=24, shortest=4, depth=3, args=3), Digits()
    if budget == "smoke":
        listops.items = 8
        return [Event(listops, 960, 30_000, 8)]
    if budget == "cpu":
        return [Event(listops, 480_000, 30_000, 16), Event(digits, 400_000, 30_000, 16)]
    return [
        Event(ListOps(length=2_000), 1_000_000_000, 500_000, 32),
        Event(digits, 40_000_000, 100_000, 64),
        Event(Pathfinder(), 1_000_000_000, 500_000, 64),
        Event(Keywords(), 5_000_000_000, 500_000, 16),  # its words are spoken when it is made
    ]


def faithful() -> bool:
    """As SeqBoat's: the same layer."""
    return seqboat.faithful()
