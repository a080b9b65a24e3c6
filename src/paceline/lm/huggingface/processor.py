"""Guided decoding inside transformers' own `generate`: a guide as a `LogitsProcessor`."""

import torch
from torch import Tensor
from transformers import LogitsProcessor

from paceline.core.errors import PacelineError
from paceline.core.state import LM, State
from paceline.decode._guided import Guide, GuidedLM


def logits_processor(guided: LM) -> LogitsProcessor:
    """What `model.generate(..., logits_processor=[...])` takes to be guided as `guided` is.

    Args:
        guided: what a guiding strategy makes of the model, e.g. `ProxyTuning(a, b).prepare(HuggingFaceLM(model))`.

    One for each call of `generate`; its prompts must be of one length, without padding, which a processor cannot see.
    With beams, ask for `renormalize_logits=True`.

    Raises:
        PacelineError: it is not a model under a guide.
    """
    guides: list[Guide] = []
    while isinstance(guided, GuidedLM):
        guides.append(guided.guide)
        guided = guided.lm
    if not guides:
        raise PacelineError(
            f"{type(guided).__name__} is not guided: give what a guiding strategy, such as proxy_tuning, prepares."
        )
    return _Guiding(guides[::-1])


class _Guiding(LogitsProcessor):
    """Keeps what the guides remember of the sequences, and finds each sequence's past again when beams were sorted."""

    def __init__(self, guides: list[Guide]) -> None:
        self._guides = guides
        self._ids: Tensor | None = None
        self._states: list[State] = []

    @torch.no_grad()
    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """The scores (b, v) of the token after `input_ids` (b, t), guided."""
        parents = self._parents(input_ids)
        if parents is None:
            for guide in self._guides:
                guide.begin(input_ids.shape[1])
            self._states, known = [guide.initial_state(len(input_ids)) for guide in self._guides], 0
        else:
            self._states, known = [state.select(parents) for state in self._states], self._states[0].length
        new = input_ids[:, known:]
        logits: Tensor = scores.unsqueeze(1).expand(-1, new.shape[1], -1)  # of the tokens before the last none asks
        for index, guide in enumerate(self._guides):
            logits, self._states[index] = guide(logits, new, self._states[index])
        self._ids = input_ids.clone()
        return logits[:, -1]  # type: ignore[return-value]

    def _parents(self, ids: Tensor) -> Tensor | None:
        """The row that each sequence goes on from; None where one goes on from none."""
        if self._ids is None or ids.shape[1] <= self._ids.shape[1]:
            return None
        same = (ids[:, None, : self._ids.shape[1]] == self._ids).all(-1)  # (new, old)
        return same.long().argmax(1) if bool(same.any(1).all()) else None
