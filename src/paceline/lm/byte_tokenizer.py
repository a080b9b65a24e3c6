"""The tokenizer of models that read bytes, as files that Hugging Face's `AutoTokenizer` loads: token i is byte i."""

import json
from typing import Any


def tokenizer_files() -> dict[str, bytes]:
    """`tokenizer.json` (byte-level BPE without merges, in the format of `tokenizers`) and `tokenizer_config.json`."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    tokenizer: dict[str, Any] = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None,
        "pre_tokenizer": byte_level, "post_processor": None, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(_alphabet())}, "merges": [],
        },
    }  # fmt: skip
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    files = {"tokenizer.json": tokenizer, "tokenizer_config.json": settings}
    return {name: json.dumps(content, indent=1).encode() + b"\n" for name, content in files.items()}


def _alphabet() -> list[str]:
    """The character that byte-level BPE writes for each byte: itself where it prints, else the next from U+0100 on."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printing else chr(next(others)) for byte in range(256)]
