"""Selective copying: some tokens lie scattered among blanks; after a mark, say them again in order.

    . 7 . . 3 . 5 . | ? ? ?   ->   7 3 5

The answers need the content, not the position: a fixed convolution cannot do it.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Generated

PAPERS = (
    Source(title="Mamba: Linear-Time Sequence Modeling with Selective State Spaces", arxiv="2312.00752", year=2023),
)


class SelectiveCopy(Generated):
    """Copy `count` tokens out of a stretch of `stretch` positions.

    Args:
        count: tokens to copy.
        stretch: positions among which they lie.
        symbols: kinds of tokens.

    Raises:
        PacelineError: more tokens than positions, or a size below 1.
    """

    name = "selective_copy"
    title = "Selective copying"

    def __init__(self, count: int = 8, stretch: int = 56, symbols: int = 16) -> None:
        if not 1 <= count <= stretch or symbols < 2:
            raise PacelineError(f"selective_copy: count={count} of symbols={symbols} do not fit in stretch={stretch}.")
        self.count, self.stretch, self.symbols = count, stretch, symbols
        self.vocab_size, self.length = symbols + 2, stretch + count
        self.prompt = stretch

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Blank is token `symbols`; the mark, which stands where an answer is asked, the one after it."""
        content = torch.randint(self.symbols, (size, self.count), generator=generator)
        places = torch.rand(size, self.stretch, generator=generator).argsort(1)[:, : self.count].sort(1).values
        ids = torch.full((size, self.length), self.symbols)
        ids.scatter_(1, places, content)
        ids[:, self.stretch :] = self.symbols + 1
        targets = torch.full_like(ids, IGNORE)
        targets[:, self.stretch :] = content
        return Batch(ids, targets)

    def describe(self) -> str:
        """See `Task.describe`."""
        return f"Repeat {self.count} tokens that lie scattered over {self.stretch} positions, in their order."

    @property
    def floor(self) -> float:
        """A guess among the symbols."""
        return 1 / self.symbols

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Letters for symbols, a dot for blank, a question mark for the mark."""
        return [chr(65 + i) if i < self.symbols else ".?"[i - self.symbols] for i in ids.tolist()]


def example() -> SelectiveCopy:
    """The smallest instance for the contract tests."""
    return SelectiveCopy(count=2, stretch=5, symbols=4)
