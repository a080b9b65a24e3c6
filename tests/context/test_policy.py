"""Policies inside transformers' own `generate`: the same tokens as under Paceline's forward pass, or a sentence."""

import pytest
import torch
from _foreign import foreign
from _lms import lean

from paceline.context._contract import Policy
from paceline.context.full import Full
from paceline.context.h2o import H2O
from paceline.context.quantised import Quantised
from paceline.context.quest import Quest
from paceline.context.sinks import Sinks
from paceline.context.snapkv import SnapKV
from paceline.context.tokenselect import TokenSelect
from paceline.context.window import Window
from paceline.core.errors import PacelineError
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.lm.huggingface.policy import use_policy

IDS = torch.randint(3, 11, (3, 20), generator=torch.Generator().manual_seed(0))
SMALL = [Quest(2, 6, 1), TokenSelect(6, 1, 2), Window(5), Sinks(6, 2), H2O(6, 3), SnapKV(6, 3), Quantised(4, 4, 4)]


def llama():
    model = foreign("llama").model
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = None
    return model


def continued(model, ids, use=None, **more):
    more.setdefault("attention_mask", torch.ones_like(ids))
    cache = {} if use is None else {"past_key_values": use.cache()}
    return model.generate(ids, max_new_tokens=16, do_sample=False, **cache, **more)[:, ids.shape[1] :].tolist()


@torch.no_grad()
def test_full_is_plain_generate_with_padding_and_beams() -> None:
    model, plain = llama(), llama()
    use = use_policy(model, Full())
    assert continued(model, IDS, use) == continued(plain, IDS)
    padded = torch.ones_like(IDS)
    padded[0, :7] = padded[1, :3] = 0
    assert continued(model, IDS, use, attention_mask=padded) == continued(plain, IDS, attention_mask=padded)
    assert continued(model, IDS, use, num_beams=3) == continued(plain, IDS, num_beams=3)
    assert continued(model, IDS[:1], use, prompt_lookup_num_tokens=3) == continued(plain, IDS[:1])
    assert torch.allclose(model(IDS).logits, plain(IDS).logits)


@torch.no_grad()
@pytest.mark.parametrize("policy", SMALL, ids=lambda policy: type(policy).__name__)
def test_every_policy_says_what_it_says_under_the_lean_forward(policy: Policy) -> None:
    model = llama()
    use = use_policy(model, policy)
    lm = lean("llama").under(policy)
    expected = [generate(lm, row, Greedy(), 16).all() for row in IDS]
    assert continued(model, IDS, use) == expected
    assert [continued(model, row[None], use)[0] for row in IDS] == expected
    meters = policy.meters()
    assert use.meters() == meters


@torch.no_grad()
def test_policies_that_forget_hold_fewer_bytes() -> None:
    held = {}
    for policy in (Full(), Window(5), H2O(6, 3)):
        model = llama()
        use = use_policy(model, policy)
        cache = use.cache()
        model(IDS, past_key_values=cache)
        held[type(policy).__name__] = cache.nbytes
        assert cache.get_seq_length() == 20
    assert held["Window"] * 5 == held["Full"] and held["H2O"] < 0.4 * held["Full"]


@torch.no_grad()
def test_what_cannot_work_is_refused() -> None:
    model = llama()
    use = use_policy(model, Quest(2, 6))
    with pytest.raises(PacelineError, match="past_key_values=use"):
        continued(model, IDS)
    padded = torch.ones_like(IDS)
    padded[0, 0] = 0
    with pytest.raises(PacelineError, match="Quest reads no padding"):
        continued(model, IDS, use, attention_mask=padded)
    cache = use.cache()
    model(IDS, past_key_values=cache)
    with pytest.raises(PacelineError, match="cannot take tokens back"):
        cache.crop(-2)
    with pytest.raises(PacelineError, match="attention"):
        use_policy(foreign("mamba").model, Full())
    gemma = foreign("gemma3").model
    use = use_policy(gemma, Full())
    with pytest.raises(PacelineError, match=r"sliding_window|mask of its own"):
        gemma(IDS, past_key_values=use.cache())
