"""Paceline: find the published methods that improve your sequence model, with the proof.

Once transformers is imported too, its `Auto` classes know Paceline's models; nothing of it is imported here.
"""

from paceline.core.late import when_imported

__version__ = "0.1.0"


def _register_config() -> None:
    from transformers import AutoConfig

    from paceline.lm.huggingface.config import PacelineConfig

    AutoConfig.register("paceline", PacelineConfig, exist_ok=True)


def _register_model() -> None:
    from transformers import AutoModelForCausalLM

    from paceline.lm.huggingface.config import PacelineConfig
    from paceline.lm.huggingface.model import PacelineForCausalLM

    AutoModelForCausalLM.register(PacelineConfig, PacelineForCausalLM, exist_ok=True)


when_imported("transformers.models.auto.configuration_auto", _register_config)
when_imported("transformers.models.auto.modeling_auto", _register_model)
