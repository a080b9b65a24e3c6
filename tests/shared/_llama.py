"""A small Llama of bytes in a folder, as Hugging Face's models come."""

from pathlib import Path

import torch

from paceline.lm.byte_tokenizer import tokenizer_files


def save_llama(folder: Path) -> Path:
    """Write it, and give the folder back."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, eos_token_id=None, bos_token_id=None,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for name, content in tokenizer_files().items():
        (folder / name).write_bytes(content)
    return folder
