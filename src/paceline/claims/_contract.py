"""What a claim declares before it is run.

`claims/<family>/<method>.py` holds

    CLAIM = "..."                                     the paper's direction and the thresholds here, a literal
    def design(budget, corpora) -> Design             what races, on what (text is prepared in the folder `corpora`,
                                                      which all claims share), and which bars must be cleared
    def faithful() -> bool                            whether the method equals its reference: the authors' outputs, or
                                                      a case worked out by hand

The verdict follows from the bars alone (claims/_verdict.py), so that nothing can be decided after looking.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

from paceline.core.errors import PacelineError
from paceline.core.ledger import Ledger
from paceline.race.contestant import Contestant, Event

Budget = Literal["smoke", "cpu", "gpu"]
"""At most 5 seconds; about 3 minutes on 2 cores, 10 at most; ten to a hundred times the tokens on a GPU."""

METER = "meter:"
"""What a bar's measure begins with where it is a meter."""


@dataclass(frozen=True)
class Bar:
    """One declared comparison: `a` does better than `b` by more than `by`.

    Raises:
        PacelineError: there is nothing of the name that it measures.
    """

    task: str
    a: str
    """The method, by its name in the race."""
    b: str
    by: float = 0.0
    """In the metric's or meter's unit; below 0 it asks for "no worse". For a currency the share saved: 0.1 is a tenth
    less."""
    measure: str = "score"
    """The task's score; a currency of the ledger (`flops`, `seconds`, `state_bytes`), of which less is better; or
    `meter:NAME`, a meter's mean over the layers, of which more is better. `state_bytes` follows from the sizes alone:
    such a bar states what the design saves, and no seed can move it."""
    equal: float | None = None
    """Margin within which the two count as equivalent, in the unit of `by`."""

    def __post_init__(self) -> None:
        known = ("score", *(currency.name for currency in fields(Ledger)))
        if self.measure not in known and not self.measure.startswith(METER):
            raise PacelineError(f"A bar cannot measure {self.measure!r}: give {', '.join(known)}, or {METER}NAME.")


@dataclass(frozen=True)
class Design:
    """A claim at one budget."""

    contestants: Sequence[Contestant]
    events: Sequence[Event]
    seeds: int | Sequence[int]
    """How many, or which; a second run takes fresh ones, declared before it."""
    bars: Sequence[Bar]
    """All must be cleared for HOLDS."""
    shams: Sequence[Bar]
    """The method against itself with its key step randomised: one must be cleared for the mark `acts`."""
    meter: str
    """Name, without the layer, of the meter that must move: neither all 0 nor all 1."""
    limits: str
    """What this scale cannot show, in a sentence."""
