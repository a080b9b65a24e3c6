"""A Paceline model's `config.json` as Hugging Face reads it. Imports no model, as transformers reads configs first."""

from collections.abc import Sequence
from typing import Any

from transformers.configuration_utils import PreTrainedConfig

from paceline.lm.config import Config


class PacelineConfig(PreTrainedConfig):
    """`Config` as Hugging Face keeps it; the same `config.json`."""

    model_type = "paceline"

    def __init__(
        self,
        vocab_size: int = 256,
        d_model: int = 64,
        hidden: int = 128,
        plan: Sequence[str] = (),
        task: str = "text",
        form: str = "decoder",
        feed_forward: str = "swiglu",
        **more: Any,
    ) -> None:
        self.vocab_size, self.d_model, self.hidden = vocab_size, d_model, hidden
        self.plan, self.task, self.form, self.feed_forward = list(plan), task, form, feed_forward
        self.hidden_size, self.num_hidden_layers = d_model, len(plan)
        super().__init__(**{"tie_word_embeddings": True, **more})

    def own(self) -> Config:
        """As Paceline has it."""
        plan = tuple(self.plan)
        return Config(self.vocab_size, self.d_model, self.hidden, plan, self.task, self.form, self.feed_forward)
