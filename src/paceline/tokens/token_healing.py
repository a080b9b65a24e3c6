"""Token healing: the prompt's last token is taken back, and the next ones must begin with what it wrote.

    T = t_1..t_k of the prompt;   sum over t that begin with the bytes of t_k of q(t | t_1..t_{k-1})

The usual mend for prompts that end in the middle of a token, and the paper's rival. In the terms of `exact_bytes.py`:
of all covers only those that extend t_1..t_{k-1}, so it is blind to tokens that begin earlier. What follows the prompt
is read as exactly as there. Cost: one reading of the prompt, then that of `ExactBytes`.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.card import Source
from paceline.tokens._rows import ByteState
from paceline.tokens.exact_bytes import ExactBytes

PAPERS = (
    Source(
        title="The Art of Prompt Design: Prompt Boundaries and Token Healing",
        year=2023,
        says="Taking back a prompt's last token and constraining the next ones to its text undoes greedy tokenisation.",
    ),
)


class TokenHealing(ExactBytes):
    """`ExactBytes` whose prompts are healed. Without `prompt` it is the same model of bytes.

    Args: see `ExactBytes`.
    """

    @torch.no_grad()
    def prompt(self, data: bytes) -> tuple[Float[Tensor, " v"], ByteState]:
        """What is said after `data` if its last token is taken back, and the state there."""
        return self.backed(data, 1)

    @torch.no_grad()
    def backed(self, data: bytes, back: int) -> tuple[Float[Tensor, " v"], ByteState]:
        """The same with `back` tokens taken back; 0 is plain continuation: the prompt's tokens as they are."""
        known = self.vocabulary
        ids = known.encode(known.prefix + data)
        kept = ids[: max(0, len(ids) - back)]
        row = self._after(kept, known.decode(kept), 0) if kept else self._begin()
        for symbol in (known.prefix + data)[len(row.text) :]:
            row = self._step(row, symbol)
        return self.logits_of(row), replace(self.initial_state(1), length=len(data), rows=(row,))


def example() -> list[TokenHealing]:
    """A toy."""
    from paceline.tokens._toy import toy

    plain = toy()
    return [TokenHealing(plain.lm, plain.vocabulary, plain.start, plain.ends, 0.0)]
