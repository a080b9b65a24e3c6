"""Set-based prompting: parts of a prompt are read as a set, so that their order cannot matter.

    prompt   = text, {part, part, ...}, text, ...
    mask       a part sees the text before its set and itself, not the other parts; text sees all before it
    position   every part of a set starts where the set starts; what follows starts after the longest part

In a prompt of token numbers the tokens `start`, `split` and `end` mark a set and are not read themselves:
`text start part split part end text`. Outputs are the same for all orders up to rounding, for sums over the cache
have another order. Cost and memory are those of the prompt.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from paceline.context._reader import Reader
from paceline.context._rows import whole
from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.core.state import LM, State

PAPERS = (
    Paper(
        title="Set-Based Prompting: Provably Solving the Language Model Order Dependency Problem",
        arxiv="2406.06581",
        year=2024,
        says="With parts of a prompt read as a set, answers do not depend on their order, at small cost in accuracy.",
    ),
)


class SetBased(Reader):
    """Reads marked parts of a prompt as sets.

    Args:
        start: token that opens a set.
        split: token between parts.
        end: token that closes the set.

    Raises:
        PacelineError: marks that are the same; when it is used, a model that takes no masks, or marks that do not fit.
    """

    def __init__(self, start: int, split: int, end: int) -> None:
        whole("SetBased", 0, start=start, split=split, end=end)
        if len({start, split, end}) < 3:
            raise PacelineError("SetBased: start, split and end must be three different tokens.")
        self.start, self.split, self.end = start, split, end

    def check(self, lm: LM) -> None:
        """See `Reader.check`."""
        if not hasattr(lm, "check_length") or not getattr(getattr(lm, "policy", None), "masks", False):
            raise PacelineError(
                "Set-based prompting gives positions and masks, which the lean Llama-like models take, under a policy "
                "that knows masks such as full."
            )

    def read_prompt(self, lm: Any, ids: Tensor) -> tuple[Tensor, State]:
        """See `Reader.read_prompt`.

        Raises:
            PacelineError: several prompts at once, marks that do not fit, or no text after the last set.
        """
        if len(ids) != 1:
            raise PacelineError("Set-based prompting reads one prompt at a time.")
        pieces = self.parse(ids[0].tolist())
        tokens = [token for piece in pieces for part in piece for token in part]
        positions, mask = self._layout([[len(part) for part in piece] for piece in pieces])
        lm.check_length(int(positions.max()) + 1)
        logits, state = lm(ids.new_tensor([tokens]), None, positions.to(ids.device)[None], mask.to(ids.device))
        shift = len(tokens) - 1 - positions[-1:]  # (b,), by how much positions stay behind the count
        return logits[:, -1:], replace(state, layers=(*state.layers, {"shift": shift.to(ids.device)}))

    def read_on(self, lm: Any, ids: Tensor, state: State) -> tuple[Tensor, State]:
        """See `Reader.read_on`."""
        shift = state.layers[-1]["shift"]
        length = state.to_read(ids).shape[1]
        end = state.length + ids.shape[1]
        lm.check_length(end - int(shift.min()))
        positions = torch.arange(end - length, end, device=ids.device) - shift[:, None]
        after: tuple[Tensor, State] = lm(ids, state, positions)
        return after

    def _layout(self, pieces: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        """What makes a set of the parts."""
        return layout(pieces)

    def parse(self, tokens: Sequence[int]) -> list[list[list[int]]]:
        """Pieces of a prompt, each a list of its parts: text has one, a set as many as it has.

        Raises:
            PacelineError: marks that do not fit, or no text after the last set.
        """
        pieces: list[list[list[int]]] = [[[]]]
        inside = False
        for token in tokens:
            if token == (self.end if inside else self.start):
                pieces.append([[]])
                inside = not inside
            elif token == self.split and inside:
                pieces[-1].append([])
            elif token in (self.start, self.split, self.end):
                raise PacelineError(
                    "The marks of sets in the prompt do not fit: start, parts with splits between, end."
                )
            else:
                pieces[-1][-1].append(token)
        if inside or not pieces[-1][0]:
            raise PacelineError("The prompt must go on after its last set: give text behind the mark that ends it.")
        return pieces


def layout(pieces: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Positions (t,) and mask (1, 1, t, t), True where a query sees a key, of pieces given by their parts' lengths."""
    starts, blocks, sets = [], [], []
    at = 0
    for number, piece in enumerate(pieces):
        for part, length in enumerate(piece):
            starts.append(torch.arange(at, at + length))
            blocks.append(torch.full((length,), part))
            sets.append(torch.full((length,), number))
        at += max(piece)
    block, belongs = torch.cat(blocks), torch.cat(sets)
    apart = (belongs[:, None] == belongs) & (block[:, None] != block)
    mask = torch.ones(len(block), len(block), dtype=torch.bool).tril() & ~apart
    return torch.cat(starts), mask[None, None]


def example() -> list[Reader]:
    """With the first three tokens as marks."""
    return [SetBased(0, 1, 2)]
