"""llama.cpp on SmolLM2, where it is installed: what `decoding.py` measures beside us, one prompt or several at once.

From the model's own 4-bit file and from what llama.cpp makes of it in 8 and 32 bits.
"""

import ctypes
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import torch
from timing import seconds

from paceline.core.packaged import packaged
from paceline.lm.pretrained import KNOWN

SILENT = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(SILENT, ctypes.c_void_p(0))
KINDS = {"Q8_0": llama_cpp.LLAMA_FTYPE_MOSTLY_Q8_0, "fp32": llama_cpp.LLAMA_FTYPE_ALL_F32}


@contextmanager
def files(model: str) -> Iterator[dict[str, Path]]:
    """The model's file in each precision, by name; made files are gone afterwards."""
    source = KNOWN[model]
    own = packaged(source.distribution, source.version, source.file, source.sha256)
    with tempfile.TemporaryDirectory() as folder:
        found = {"Q4_1": own}
        for name, kind in KINDS.items():
            found[name] = Path(folder) / f"{name}.gguf"
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype, params.allow_requantize = kind, True
            if llama_cpp.llama_model_quantize(str(own).encode(), str(found[name]).encode(), params):
                raise RuntimeError(f"llama.cpp made no {name} of {own}.")
        yield found


class Alone:
    """Tokens a second after the first, of one prompt."""

    def __init__(self, path: Path, ids: list[int], tokens: int) -> None:
        threads = torch.get_num_threads()
        self._model = llama_cpp.Llama(str(path), n_ctx=1024, n_threads=threads, use_mmap=False, verbose=False)
        self._ids, self._tokens = ids, tokens

    def __call__(self) -> float:
        self._model.reset()
        stream = self._model.generate(self._ids, temp=0.0)
        next(stream)
        return (self._tokens - 1) / seconds(lambda: [next(stream) for _ in range(self._tokens - 1)])


class Entry(NamedTuple):
    """A token of a batch."""

    token: int
    place: int
    sequences: list[int]
    asked: bool


class SideBySide:
    """Tokens a second of several prompts, decoded greedily in one batch; what they begin alike with is read once."""

    def __init__(self, path: Path, prompts: list[list[int]], tokens: int) -> None:
        how = llama_cpp.llama_model_default_params()
        how.use_mmap = False
        self._model: Any = llama_cpp.llama_model_load_from_file(str(path).encode(), how)
        room = sum(map(len, prompts)) + len(prompts) * tokens
        params = llama_cpp.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_seq_max, params.kv_unified = room, room, len(prompts), True
        params.n_threads = params.n_threads_batch = torch.get_num_threads()
        self._context: Any = llama_cpp.llama_init_from_model(self._model, params)
        self._batch = llama_cpp.llama_batch_init(room, 0, len(prompts))
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._prompts, self._tokens = prompts, tokens
        weakref.finalize(self, _free, self._batch, self._context, self._model)

    def __call__(self) -> float:
        made: list[list[int]] = []
        taken = seconds(lambda: made.extend(self.all()))
        return sum(map(len, made)) / taken

    def all(self) -> list[list[int]]:
        """The texts."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), False)
        every = list(range(len(self._prompts)))
        alike = takewhile(lambda column: len(set(column)) == 1, zip(*self._prompts, strict=False))
        shared = min(len(list(alike)), min(map(len, self._prompts)) - 1)
        self._read(Entry(token, place, every, False) for place, token in enumerate(self._prompts[0][:shared]))
        last = self._read(
            Entry(token, place, [number], place == len(prompt) - 1)
            for number, prompt in enumerate(self._prompts)
            for place, token in enumerate(prompt[shared:], shared)
        )
        made = [[token] for token in last]
        for step in range(self._tokens - 1):
            last = self._read(
                Entry(last[number], len(prompt) + step, [number], True) for number, prompt in enumerate(self._prompts)
            )
            for text, token in zip(made, last, strict=True):
                text.append(token)
        return made

    def _read(self, entries: Iterable[Entry]) -> list[int]:
        """The likeliest token after each that is asked."""
        read = list(entries)
        self._batch.n_tokens = len(read)
        for row, entry in enumerate(read):
            self._batch.token[row], self._batch.pos[row] = entry.token, entry.place
            self._batch.logits[row], self._batch.n_seq_id[row] = entry.asked, len(entry.sequences)
            for index, number in enumerate(entry.sequences):
                self._batch.seq_id[row][index] = number
        if status := llama_cpp.llama_decode(self._context, self._batch):
            raise RuntimeError(f"llama.cpp gave {status} for a batch of {len(read)} tokens.")
        rows = (llama_cpp.llama_get_logits_ith(self._context, row) for row, entry in enumerate(read) if entry.asked)
        return [int(np.ctypeslib.as_array(row, (self._vocabulary,)).argmax()) for row in rows]


def _free(batch: Any, context: Any, model: Any) -> None:
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
