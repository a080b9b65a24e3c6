"""A guided language model: one model's logits, changed by what the tokens say elsewhere, are a language model again.

    logits'_t = guide(logits_t, tokens up to t)

A guide is other models read beside it (`Combination`), or a grammar (`grammar.py`). Its memory stands in the state
beside the model's (`core/joint.py`), so what is guided forks, rewinds and selects: it can be drafted for, searched in
beams, guided again, and its prefixes are not read twice. Cost: the model's and the guide's, call for call.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.joint import Joint
from paceline.core.state import LM, State

Combine = Callable[[Sequence[Tensor]], Tensor]
"""From the logits of the model and of each helper, all (b, t, v), to (b, t, v)."""


class Guide(ABC):
    """What changes logits.

    Attributes:
        helper_calls: of other models, a call.
        longest: tokens that it can read; None: any number.
    """

    helper_calls: int = 0
    longest: int | None = None

    def begin(self, prompt: int) -> None:  # noqa: B027
        """Called by who knows the prompt's length in tokens, before what follows it is guided; most need not know."""

    @abstractmethod
    def initial_state(self, batch: int) -> State:
        """The empty past of `batch` sequences."""

    @abstractmethod
    def __call__(
        self, logits: Float[Tensor, "b t v"], ids: Int[Tensor, "b t"], state: State
    ) -> tuple[Float[Tensor, "b t v"], State]:
        """The logits after each of `ids`, which follow `state`, changed; and the state after them."""


class Combination(Guide):
    """Other models, whose logits are combined with the guided one's.

    Args:
        helpers: at least one, of the guided model's vocabulary.
        combine: the formula.
    """

    def __init__(self, helpers: Sequence[LM], combine: Combine) -> None:
        self.helpers, self.combine = tuple(helpers), combine
        self.helper_calls = len(self.helpers)
        self.longest = shortest([getattr(helper, "longest", None) for helper in self.helpers])

    def initial_state(self, batch: int) -> Joint:
        """See `Guide.initial_state`."""
        return Joint.of_parts(tuple(helper.initial_state(batch) for helper in self.helpers), "helpers")

    def __call__(self, logits: Tensor, ids: Tensor, state: State) -> tuple[Tensor, Joint]:
        """See `Guide.__call__`."""
        everyone, after = [logits], []
        for helper, part in zip(self.helpers, cast(Joint, state).parts, strict=True):
            said, part = helper(ids, part)
            everyone.append(said.to(logits))
            after.append(part)
        return self.combine(everyone), Joint.of_parts(tuple(after), state.of)


class GuidedLM:
    """A model under a guide, itself a `core.state.LM`.

    Args:
        lm: the model.
        guide: what changes its logits.
    """

    def __init__(self, lm: LM, guide: Guide) -> None:
        self.lm, self.guide = lm, guide
        self.vocab_size: int = lm.vocab_size
        self.longest = shortest([getattr(lm, "longest", None), guide.longest])
        self.looks_ahead: bool = getattr(lm, "looks_ahead", False)
        self.helper_calls: int = getattr(lm, "helper_calls", 0) + guide.helper_calls
        self._kind = f"guided {type(guide).__name__} {lm.initial_state(1).of}"

    def initial_state(self, batch: int) -> Joint:
        """The empty past of `batch` sequences."""
        own, guide = self.lm.initial_state(batch), self.guide.initial_state(batch)
        return Joint.of_parts((own, guide), self._kind)

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None = None) -> tuple[Float[Tensor, "b t v"], State]:
        """Guided logits of each next token, and the state after them."""
        state = self.initial_state(len(ids)) if state is None else state
        state.check(self._kind, ids)
        own, guide = cast(Joint, state).parts
        logits, own = self.lm(ids, own)
        logits, guide = self.guide(logits, ids, guide)
        return logits, Joint.of_parts((own, guide), state.of)

    @torch.no_grad()
    def read_prompt(self, ids: Int[Tensor, "b t"]) -> tuple[Float[Tensor, "b t v"], State]:
        """A whole prompt, for a model that looks ahead in it."""
        logits, own = self.lm.read_prompt(ids)  # type: ignore[attr-defined]
        logits, guide = self.guide(logits, ids, self.guide.initial_state(len(ids)))
        return logits, Joint.of_parts((own, guide), self._kind)


def shortest(lengths: Sequence[int | None]) -> int | None:
    """The least of those that are limits."""
    return min((length for length in lengths if length is not None), default=None)
