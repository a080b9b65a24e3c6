"""A Paceline model as a Hugging Face one: for `AutoModelForCausalLM`, `generate`, PEFT and what else takes those."""

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
    """A `State` where Hugging Face wants a cache."""

    is_compileable = False

    def __init__(self, state: State | None = None) -> None:
        super().__init__(layers=[])
        self.state = state

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Tokens seen."""
        return 0 if self.state is None else self.state.length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        """Beams."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Sequences of the batch."""
        if self.state is not None:
            self.state = self.state.select(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Each sequence `repeats` times."""
        if self.state is not None:
            self.state = self.state.select(torch.arange(self.state.batch).repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        """Take back the last tokens, given as a number below 0."""
        if self.state is not None:
            self.state = self.state.rewind(-tokens_to_remove)


class PacelineModel(PreTrainedModel):
    """The decoder without its head, with the same names of weights."""

    config_class = PacelineConfig
    base_model_prefix = "model"
    decoder: Decoder

    def __init__(self, config: PacelineConfig) -> None:
        super().__init__(config)
        if config.form != "decoder":
            raise PacelineError(f"This model is an {config.form}: it gives one answer a sequence and continues no text.")
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
        """What the head reads of each token, and the cache where one is used.

        Raises:
            PacelineError: sequences are padded on the left.
        """
        if attention_mask is not None and not attention_mask[:, 0].all():
            raise PacelineError("A Paceline model takes no padding on the left: pad on the right, or give one prompt.")
        if not use_cache and past_key_values is None:
            return BaseModelOutputWithPast(last_hidden_state=self.decoder.hidden_states(input_ids))
        past = PacelineCache() if past_key_values is None else past_key_values
        hidden, past.state = self.decoder.extend(input_ids, past.state)
        return BaseModelOutputWithPast(last_hidden_state=hidden, past_key_values=past)


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
