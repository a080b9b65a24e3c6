"""What every compression promises: the bits it declares, a model that still predicts, and the old one untouched."""

import pytest
import torch
from _lms import decoding_lm, lean
from torch import nn

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.core.state import State
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.lm.table import Table

PROMPT = [3, 1, 4, 1, 5, 2, 6]


class Wide(nn.Module):
    """As much of a model as a compression asks for."""

    vocab_size = 64

    def __init__(self) -> None:
        super().__init__()
        self.map = nn.Linear(1024, 64, bias=False)

    def initial_state(self, batch: int) -> State:
        return State((), 0)


def compressions(method: str):
    return load("compress", method).example()


@pytest.mark.parametrize("method", methods("compress"))
@pytest.mark.parametrize("kind", ["attention", "hybrid", "lean llama", "gpt2"])
def test_predictions_stay_close_and_the_model_as_it_was(method: str, kind: str) -> None:
    lm = decoding_lm(kind).float() if kind != "lean llama" else lean("llama")
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        before = lm(ids, None)[0]
        for compression in compressions(method):
            smaller = compression.apply(lm)
            after = smaller(ids, None)[0]
            error = (after - before).norm() / before.norm()
            assert torch.equal(lm(ids, None)[0], before)
            if any(isinstance(m, nn.Linear) for m in lm.modules()):
                assert 0 < error < 2.0 ** (2 - compression.bits / 2)
            assert len(generate(smaller, PROMPT, Greedy(), 5).all()) == 5


@pytest.mark.parametrize("method", methods("compress"))
def test_measured_bits_are_those_declared(method: str) -> None:
    holder = Wide()
    for compression in compressions(method):
        smaller = compression.apply(holder)
        stored = sum(t.nbytes for t in smaller.map.state_dict().values())
        assert 8 * stored / holder.map.weight.numel() == pytest.approx(compression.bits)


@pytest.mark.parametrize("method", methods("compress"))
def test_a_model_without_linear_maps_is_refused(method: str) -> None:
    for compression in compressions(method):
        with pytest.raises(PacelineError, match="Table has no linear maps"):
            compression.apply(Table(torch.zeros(3, 3)))
