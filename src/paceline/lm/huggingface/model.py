"""A Paceline model as a Hugging Face one: for `AutoModelForCausalLM`, `generate`, PEFT and what else takes those.

Padding on the left: sequences of one length are read together, without their padding, and the lengths one after the
other. So every mixer does it right, at the price of a pass for each length in the batch.
"""

import os
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from paceline.core.errors import PacelineError
from paceline.core.state import State
from paceline.lm.checkpoint import save_model
from paceline.lm.config import build
from paceline.lm.decoder import Decoder
from paceline.lm.huggingface.config import PacelineConfig


class PacelineCache(Cache):
    """A `State` where Hugging Face wants a cache: one for each length of the batch's sequences."""

    is_compileable = False

    def __init__(self) -> None:
        super().__init__(layers=[])
        self.parts: list[tuple[Int[Tensor, " k"], State]] = []
        """Rows of the batch, and the state of these."""
        self.columns = 0
        """Tokens seen, padding included."""

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen, padding included."""
        return self.columns

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beams."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Sequences of the batch."""
        parts = []
        for rows, state in self.parts:
            taken, place = (indices.unsqueeze(1) == rows).nonzero().unbind(1)
            if len(taken):
                parts.append((taken, state.select(place)))
        self.parts = parts

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        batch = sum(len(rows) for rows, _ in self.parts)
        self.batch_select_indices(torch.arange(batch).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last tokens, given as a number below 0."""
        self.parts = [(rows, state.rewind(-tokens_to_remove)) for rows, state in self.parts]
        self.columns += tokens_to_remove


class PacelineModel(PreTrainedModel):
    """The decoder without its head, with the same names of weights."""

    config_class = PacelineConfig
    base_model_prefix = "model"
    decoder: Decoder

    def __init__(self, config: PacelineConfig) -> None:
        super().__init__(config)
        if config.form != "decoder":
            raise PacelineError(
                f"This model is an {config.form}: it gives one answer a sequence and has no next token."
            )
        decoder = build(config.own())
        self.embedding, self.layers, self.norm = decoder.embedding, decoder.layers, decoder.norm
        self.__dict__["decoder"] = decoder  # not a part of its own, or each weight would have two names
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Parts have drawn their own."""

    def get_input_embeddings(self) -> nn.Module:
        """Tokens to vectors."""
        return self.embedding

    def forward(
        self,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Tensor | None = None,
        past_key_values: PacelineCache | None = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> BaseModelOutputWithPast:
        """What the head reads of each token (zero for padding on the left), and the cache where one is used.

        Raises:
            PacelineError: a sequence is nothing but padding.
        """
        past = PacelineCache() if past_key_values is None else past_key_values
        parts: list[tuple[Tensor, State | None]] = list(past.parts)
        pieces = [input_ids[rows] for rows, _ in parts]
        if not parts:
            padding = _padding(input_ids, attention_mask)
            for skipped in padding.unique().tolist():
                rows = (padding == skipped).nonzero()[:, 0]
                parts.append((rows, None))
                pieces.append(input_ids[rows, skipped:])
        if not use_cache and past_key_values is None:
            read = [self.decoder.hidden_states(ids) for ids in pieces]
            return BaseModelOutputWithPast(last_hidden_state=_join(parts, read, input_ids))
        both = [self.decoder.extend(ids, state) for ids, (_, state) in zip(pieces, parts, strict=True)]
        past.parts = [(rows, state) for (rows, _), (_, state) in zip(parts, both, strict=True)]
        past.columns += input_ids.shape[1]
        hidden = _join(parts, [read for read, _ in both], input_ids)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=past)


def _padding(ids: Tensor, mask: Tensor | None) -> Tensor:
    """How many of each row's first tokens are padding."""
    if mask is None or mask.ndim != 2:
        return torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    if not mask.any(1).all():
        raise PacelineError("A sequence of this batch is nothing but padding: give each at least one token.")
    return mask.bool().int().argmax(1)


def _join(parts: list[tuple[Tensor, State | None]], read: list[Tensor], ids: Tensor) -> Tensor:
    """The rows back in their order, (b, t, d)."""
    if len(parts) == 1 and read[0].shape[1] == ids.shape[1]:
        return read[0]
    whole = read[0].new_zeros(*ids.shape, read[0].shape[-1])
    for (rows, _), hidden in zip(parts, read, strict=True):
        whole[rows, ids.shape[1] - hidden.shape[1] :] = hidden
    return whole


class PacelineForCausalLM(PreTrainedModel, GenerationMixin):
    """A Paceline decoder as a Hugging Face model."""

    config_class = PacelineConfig
    base_model_prefix = "model"
    _tied_weights_keys = {"lm_head.weight": "model.embedding.weight"}

    def __init__(self, config: PacelineConfig) -> None:
        super().__init__(config)
        self.model = PacelineModel(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Parts have drawn their own."""

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **more: Any) -> None:  # type: ignore[override]
        """As Hugging Face saves it, and then as Paceline does, so that either loads it."""
        super().save_pretrained(save_directory, *args, **more)
        save_model(self.model.decoder, self.config.own(), Path(save_directory))

    def _prepare_cache_for_generation(  # type: ignore[override]
        self, generation_config: Any, model_kwargs: dict[str, Any], *_: Any
    ) -> bool:
        # How many more arguments there are differs between versions of transformers; the answer is not used.
        if generation_config.use_cache is not False:
            model_kwargs.setdefault("past_key_values", PacelineCache())
        return True

    def forward(
        self,
        input_ids: Int[Tensor, "b t"],
        attention_mask: Tensor | None = None,
        past_key_values: PacelineCache | None = None,
        labels: Int[Tensor, "b t"] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Logits, of the last `logits_to_keep` tokens if it is not 0; the loss where there are labels; the cache."""
        read = self.model(input_ids, attention_mask, past_key_values, use_cache)
        logits = self.lm_head(read.last_hidden_state[:, -logits_to_keep:])
        loss = None if labels is None else self.loss_function(logits, labels, vocab_size=self.config.vocab_size)
        return CausalLMOutputWithPast(loss=loss, logits=logits, past_key_values=read.past_key_values)
