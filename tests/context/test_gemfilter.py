"""GemFilter chooses by the model's early layers, as transformers computes them, and reads the chosen tokens anew."""

import pytest
import torch
from _foreign import foreign
from _lms import lean
from torch.nn import functional
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

from paceline.context.gemfilter import GemFilter
from paceline.context.snapkv import SnapKV
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy

LM = lean("llama")
IDS = torch.randint(11, (3, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def chosen_by_transformers(ids: torch.Tensor, layer: int, tokens: int, kernel: int) -> torch.Tensor:
    model = foreign("llama").model
    block = model.model.layers[layer]
    x = block.input_layernorm(model(ids, output_hidden_states=True).hidden_states[layer])
    q = block.self_attn.q_proj(x).unflatten(2, (-1, 8)).transpose(1, 2)
    k = block.self_attn.k_proj(x).unflatten(2, (-1, 8)).transpose(1, 2)
    q, k = apply_rotary_pos_emb(q, k, *model.model.rotary_emb(x, torch.arange(ids.shape[1])[None]))
    score = (q[:, :, -1:] @ k.repeat_interleave(2, dim=1).transpose(2, 3)).sum(1)
    pooled = functional.pad(score, (kernel // 2,) * 2).unfold(2, kernel, 1).mean(3)[:, 0]
    return pooled.topk(tokens).indices.sort().values


@pytest.mark.parametrize(("layer", "tokens", "kernel"), [(0, 9, 5), (1, 9, 5), (1, 1, 1), (1, 39, 3)])
def test_it_keeps_what_the_last_token_points_at(layer: int, tokens: int, kernel: int) -> None:
    reader = GemFilter(layer, tokens, kernel)
    kept = chosen_by_transformers(IDS, layer, tokens, kernel)
    assert torch.equal(reader.choose(LM, IDS), kept)
    logits, state = reader.prepare(LM)(IDS, None)
    expected, short = LM(IDS.gather(1, kept), None)
    assert torch.equal(logits, expected[:, -1:]) and state.nbytes == short.nbytes and state.length == tokens
    assert reader.meters() == {"kept": tokens / 40}
    following, _ = reader.prepare(LM)(IDS[:, :2], state)
    assert torch.equal(following, LM(IDS[:, :2], short)[0])


def test_a_budget_for_all_is_plain_reading() -> None:
    expected = generate(LM, IDS[0], Greedy(), 10).all()
    assert generate(GemFilter(1, 40).prepare(LM), IDS[0], Greedy(), 10).all() == expected


def test_the_engine_gives_it_the_whole_prompt() -> None:
    lm = GemFilter(1, 8).prepare(LM)
    stream = generate(lm, IDS[0], Greedy(), 10)
    kept = IDS[0][GemFilter(1, 8).choose(LM, IDS[:1])[0]]
    assert stream.all() == generate(LM, kept, Greedy(), 10).all()
    full = generate(LM, IDS[0], Greedy(), 10)
    full.all()
    assert stream.counts.state_bytes < full.counts.state_bytes / 2


def test_a_question_read_after_the_context_does_not_choose() -> None:
    lm, context = GemFilter(1, 8, 1).prepare(LM), IDS[:1]
    kept = []
    for question in (torch.tensor([[1, 2]]), torch.tensor([[7, 9]])):
        _, state = lm(question, lm(context, None)[1])
        kept.append(state.layers[0]["k"][:, :, :8])
        assert state.length == 10
    assert torch.equal(*kept)


def test_it_goes_with_policies() -> None:
    snap = LM.under(SnapKV(6, 2))
    lm = GemFilter(1, 20).prepare(snap)
    _, state = lm(IDS, None)
    assert {layer["k"].shape[2] for layer in state.layers} == {6}
    kept = IDS.gather(1, GemFilter(1, 20).choose(LM, IDS))
    expected, _ = snap(IDS[:, :3], snap(kept, None)[1])
    assert close(lm(IDS[:, :3], state)[0], expected, torch.float64)


def test_nonsense_is_refused() -> None:
    with pytest.raises(PacelineError, match="no layer 2, its last is 1"):
        GemFilter(2).prepare(LM)
    with pytest.raises(PacelineError, match="must be odd"):
        GemFilter(0, kernel=2)
