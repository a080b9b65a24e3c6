"""Small Hugging Face models of several architectures, made on the spot."""

import os

import torch
from _tiny import VOCABULARY

os.environ.setdefault("HF_HUB_OFFLINE", "1")

SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
FOREIGN = {
    "llama": ("LlamaConfig", SIZES),
    "qwen3": ("Qwen3Config", SIZES),
    "qwen3-next": ("Qwen3NextConfig", {**SIZES, "layer_types": ["linear_attention", "full_attention"],
        "linear_num_value_heads": 2, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8, "shared_expert_intermediate_size": 8}),
    "gpt2": ("GPT2Config", {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "gemma3": ("Gemma3TextConfig", {**SIZES, "num_hidden_layers": 2, "sliding_window": 4,
        "layer_types": ["sliding_attention", "full_attention"]}),
    "mamba": ("MambaConfig", {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 4}),
    "mamba2": ("Mamba2Config", {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2, "state_size": 8,
        "num_heads": 4, "head_dim": 8, "n_groups": 1, "chunk_size": 8}),
}  # fmt: skip

SINGLE = {"mamba", "mamba2", "qwen3-next"}
"""They compute some of it in float32, whatever they are given."""


def foreign(name: str):
    """The model, in float64, under Paceline's protocol."""
    import transformers

    from paceline.lm.huggingface.foreign import HuggingFaceLM

    kind, sizes = FOREIGN[name]
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(
        getattr(transformers, kind)(**sizes), experts_implementation="eager"
    )
    return HuggingFaceLM(model.double())
