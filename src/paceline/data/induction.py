"""Induction: a random sequence says a pair "a b"; when a comes again, say b.

Asked wherever a token that stood before is followed as it was when last seen, so a sequence holds many questions, and
each answer stands in the sequence. The followers are drawn anew for every sequence: nothing can be learned by heart.
"""

import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Generated

PAPERS = (Source(title="In-context Learning and Induction Heads", arxiv="2209.11895", year=2022),)


class Induction(Generated):
    """A walk over `symbols` tokens in which each token has one follower, from which one step in four strays.

    Args:
        symbols: kinds of tokens.
        length: tokens of a sequence, above `symbols`.

    Raises:
        PacelineError: the sequence is too short for a token to come twice.
    """

    name = "induction"
    title = "Induction"

    def __init__(self, symbols: int = 16, length: int = 64) -> None:
        if symbols < 2 or length <= symbols:
            raise PacelineError(f"induction: length={length} must be above symbols={symbols}, and symbols at least 2.")
        self.symbols, self.length, self.vocab_size = symbols, length, symbols

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """A cyclic order of all symbols per sequence, entered anywhere, with jumps. Every sequence asks something."""
        order = torch.rand(size, self.symbols, generator=generator).argsort(1)
        jump = torch.rand(size, self.length + 1, generator=generator) < 0.25
        target = torch.randint(self.symbols, (size, self.length + 1), generator=generator)
        batch = self._walk(order, jump, target)
        silent = (batch.targets == IGNORE).all(1, keepdim=True)
        return self._walk(order, jump & ~silent, target) if silent.any() else batch  # without jumps, a cycle closes

    def _walk(self, order: Tensor, jump: Tensor, target: Tensor) -> Batch:
        place = order.argsort(1)  # where each symbol stands in the cycle
        tokens = [target[:, 0]]
        for t in range(1, self.length + 1):  # over positions, for all sequences at once: 64 cheap steps
            here = place.gather(1, tokens[-1].unsqueeze(1))
            follower = order.gather(1, (here + 1) % self.symbols).squeeze(1)
            tokens.append(torch.where(jump[:, t], target[:, t], follower))
        walk = torch.stack(tokens, dim=1)
        ids, after = walk[:, :-1], walk[:, 1:]
        earlier = (ids.unsqueeze(2) == ids.unsqueeze(1)).tril(-1)  # (b, t, t)
        last = (earlier * torch.arange(1, self.length + 1)).amax(-1)  # when last seen, counted from 1; 0 is never
        told = after.gather(1, (last - 1).clamp(min=0))
        return Batch(ids, torch.where((last > 0) & (after == told), after, IGNORE))

    def describe(self) -> str:
        """See `Task.describe`."""
        return f"Say what followed a token when it was last seen, in {self.length} tokens over {self.symbols} symbols."

    @property
    def floor(self) -> float:
        """A guess among the symbols."""
        return 1 / self.symbols

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Letters."""
        return [chr(65 + i) for i in ids.tolist()]


def example() -> Induction:
    """The smallest instance for the contract tests."""
    return Induction(symbols=3, length=8)
