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

    def forward(self, ids: torch.Tensor, state: State | None) -> tuple[torch.Tensor, State]:
        return self.map(ids.unsqueeze(-1) * torch.linspace(-1, 1, 1024)), State((), ids.shape[1])


def compressions(method: str):
    return load("compress", method).example()


def wide_llama():
    """Of Llama's kind, all maps from 1,024 numbers."""
    transformers = pytest.importorskip("transformers")
    from paceline.lm.huggingface.llama import Llama

    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=1024, intermediate_size=1024, num_hidden_layers=1, num_attention_heads=16,
        num_key_value_heads=4, max_position_embeddings=64,
    )  # fmt: skip
    return Llama(transformers.LlamaForCausalLM(config))


def changed_maps(before: nn.Module, after: nn.Module) -> list[tuple[nn.Module, nn.Module]]:
    new = dict(after.named_modules())
    maps = [(m, new[name]) for name, m in before.named_modules() if isinstance(m, nn.Linear)]
    return [(old, made) for old, made in maps if not isinstance(made, nn.Linear)]


@pytest.mark.parametrize("method", methods("compress"))
@pytest.mark.parametrize("kind", ["attention", "hybrid", "lean llama", "lean qwen3", "gpt2"])
def test_predictions_stay_close_and_the_model_as_it_was(method: str, kind: str) -> None:
    lm = lean(kind.removeprefix("lean ")) if kind.startswith("lean") else decoding_lm(kind).float()
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        before = lm(ids, None)[0]
        for compression in compressions(method):
            if compression.llamas and not kind.startswith("lean"):
                with pytest.raises(PacelineError, match="is not of Llama's kind"):
                    compression.apply(lm)
                continue
            smaller = compression.apply(lm)
            after = smaller(ids, None)[0]
            error = (after - before).norm() / before.norm()
            assert torch.equal(lm(ids, None)[0], before)
            if any(isinstance(m, nn.Linear) for m in lm.modules()):
                assert 0 < error < 2.0 ** (2 - compression.bits / 2)
            assert len(generate(smaller, PROMPT, Greedy(), 5).all()) == 5


@pytest.mark.parametrize("method", methods("compress"))
def test_measured_bits_are_those_declared(method: str) -> None:
    for compression in compressions(method):
        holder = wide_llama() if compression.llamas else Wide()
        maps = changed_maps(holder, compression.apply(holder))
        assert maps
        for old, made in maps:
            stored = sum(t.nbytes for t in made.state_dict().values())
            assert 8 * stored / old.weight.numel() == pytest.approx(compression.bits)


@pytest.mark.parametrize("method", methods("compress"))
def test_reading_in_pieces_gives_what_reading_at_once_gives(method: str) -> None:
    lm = lean("llama")
    ids = torch.tensor([PROMPT])
    with torch.no_grad():
        for compression in compressions(method):
            smaller = compression.apply(lm)
            whole = smaller(ids, None)[0]
            logits, state = smaller(ids[:, :3], None)
            pieces = [logits]
            for token in ids[:, 3:].split(1, dim=1):
                logits, state = smaller(token, state)
                pieces.append(logits)
            torch.testing.assert_close(torch.cat(pieces, 1), whole)


@pytest.mark.parametrize("method", methods("compress"))
def test_a_model_without_linear_maps_is_refused(method: str) -> None:
    for compression in compressions(method):
        with pytest.raises(PacelineError, match="Table has no linear maps"):
            compression.apply(Table(torch.zeros(3, 3)))
