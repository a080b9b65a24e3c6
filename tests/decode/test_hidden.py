"""Layers seen from outside, on models of every kind, against the models' own words."""

import pytest
import torch
from _foreign import foreign
from _lms import LMS, decoding_lm

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._hidden import Seen
from paceline.lm.table import Table

IDS = torch.tensor([[3, 1, 4, 1, 5, 2, 6], [6, 2, 5, 1, 4, 1, 3]])


@pytest.mark.parametrize("kind", LMS)
def test_the_head_reads_the_last_stream_and_pieces_are_the_whole(kind: str) -> None:
    lm = decoding_lm(kind)
    seen = Seen(lm, "a test")
    with torch.no_grad():
        expected, _ = lm(IDS, lm.initial_state(2))
        logits, layers, _ = seen(IDS, lm.initial_state(2))
        _, some, state = seen(IDS[:, :5], lm.initial_state(2).keeping(3))
        _, rest, _ = seen(IDS[:, 3:], state.rewind(2))  # which reads again what was taken back in the middle
        assert torch.equal(logits, expected) and close(seen.head(layers[-1]), expected, expected.dtype)
    assert len(layers) == seen.depth + 1
    assert not any(torch.equal(a, b) for a, b in zip(layers, layers[1:], strict=False))
    dtype = torch.float32 if kind == "mamba" else torch.float64  # Mamba computes some of it in single precision
    for all_at_once, one, two in zip(layers, some, rest, strict=True):
        assert close(torch.cat((one[:, :3], two), 1), all_at_once, dtype)


def test_a_lean_model_and_transformers_see_the_same() -> None:
    lean, original = decoding_lm("lean llama"), foreign("llama")
    with torch.no_grad():
        _, one, _ = Seen(lean, "a test")(IDS, lean.initial_state(2))
        _, other, _ = Seen(original, "a test")(IDS, original.initial_state(2))
    # transformers normalises in single precision
    assert all(close(a, b, torch.float32) for a, b in zip(one, other, strict=True))


def test_a_model_that_shows_none_is_refused() -> None:
    with pytest.raises(PacelineError, match=r"dola needs to see a model's layers, and Table shows none"):
        Seen(Table(torch.zeros(3, 3)), "dola")
