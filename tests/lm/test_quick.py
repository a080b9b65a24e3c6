"""Products of few rows, and models made quick by them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from _foreign import foreign
from _tiny import model

from paceline.compress import _rows
from paceline.compress._rows import FEW, can, few_rows
from paceline.compress.int8 import Int8, Int8Linear
from paceline.compress.rtn import RTN
from paceline.context import _steps
from paceline.context._contract import Policy
from paceline.context.full import Full
from paceline.context.h2o import H2O
from paceline.context.quantised import Quantised
from paceline.context.quest import Quest
from paceline.context.sinks import Sinks
from paceline.context.snapkv import SnapKV
from paceline.context.tokenselect import TokenSelect
from paceline.context.window import Window
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.decode.speculative import Speculative
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config, build
from paceline.lm.huggingface.llama import Llama
from paceline.lm.layers import LayeredDecoder, layered
from paceline.lm.open import open_lm, strategy
from paceline.lm.quick import LEAST, QuickLinear, quicken

pytest.importorskip("numba")


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 8, FEW])
@pytest.mark.parametrize("kind", [torch.float32, torch.int8])
def test_few_rows_are_the_product(rows: int, kind: torch.dtype) -> None:
    torch.manual_seed(rows)
    x, scales = torch.randn(rows, 37), torch.rand(11) + 0.5
    weights = (20 * torch.randn(11, 37)).to(kind)
    expected = (x.double() @ weights.double().T) * scales.double()
    assert can(x)
    torch.testing.assert_close(few_rows(x, weights, scales).double(), expected, rtol=1e-5, atol=1e-4)


def test_what_the_loops_do_not_take_goes_the_usual_way() -> None:
    linear = torch.nn.Linear(300, 300)
    quick = QuickLinear(linear)
    assert quick.weight is linear.weight and LEAST <= 300 * 300
    for x in (torch.randn(FEW + 1, 300), torch.randn(2, 300, requires_grad=True)):
        assert not can(x) and torch.equal(quick(x), linear(x))
    with torch.no_grad():
        x = torch.randn(2, 3, 300)
        assert can(x.flatten(0, 1))
        torch.testing.assert_close(quick(x), linear(x), rtol=1e-4, atol=1e-5)
    assert not can(torch.randn(1, 300, dtype=torch.float64))


def test_eight_bits_are_the_same_with_and_without_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    eight, x = Int8Linear(torch.nn.Linear(64, 48)), torch.randn(3, 64)
    looped = eight(x)
    monkeypatch.setattr(_rows, "kernels", lambda: None)
    assert not can(x)
    torch.testing.assert_close(eight(x), looped, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "qwen3", "paceline"])
@pytest.mark.parametrize("tokens", [1, 3])
def test_a_quick_model_says_the_same_from_the_same_states(
    kind: str, tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    plain = layered(model("attention")) if kind == "paceline" else Llama(foreign(kind).model.float())
    quick = quicken(plain)
    assert quick is not plain and isinstance(quick, type(plain))
    modules = (quick if isinstance(quick, Llama) else quick.decoder).modules()
    assert any(isinstance(m, QuickLinear) for m in modules)
    ids = torch.randint(0, plain.vocab_size, (1, 20))
    with torch.no_grad():
        _, state = plain(ids, None)
        again, after = quick(ids[:, :tokens], state)  # from the other's state
        torch.testing.assert_close(again, plain(ids[:, :tokens], state)[0], rtol=1e-4, atol=1e-4)
    assert after.length == 20 + tokens
    prompt = ids[0].tolist()
    assert generate(quick, prompt, Greedy(), 12).all() == generate(plain, prompt, Greedy(), 12).all()


@pytest.mark.parametrize("tokens", [1, 2, 4, 7])
@pytest.mark.parametrize("eight", [False, True])
def test_all_layers_in_one_loop_read_a_long_cache_in_pieces(
    tokens: int, eight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    monkeypatch.setattr("paceline.context._steps.PIECE", 8)
    plain = Llama(foreign("llama").model.float())
    quick = quicken(plain)
    if eight:
        plain, quick = Int8().apply(plain), Int8().apply(quick)
    asked = []
    stack = type(quick)._maps
    monkeypatch.setattr(type(quick), "_maps", lambda lm: asked.append(1) or stack(lm))
    ids = torch.randint(0, plain.vocab_size, (1, 61))
    with torch.no_grad():
        state = other = plain(ids[:, :30], None)[1]
        for start in range(30, 30 + 3 * tokens, tokens):
            piece = ids[:, start : start + tokens]
            (logits, state), (expected, other) = quick(piece, state), plain(piece, other)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(state.layers[-1]["v"], other.layers[-1]["v"], rtol=1e-4, atol=1e-4)
        back = quick(ids[:, 30:31], state.rewind(3 * tokens))[0]  # what was written behind is written over
        torch.testing.assert_close(back, plain(ids[:, 30:31], other.rewind(3 * tokens))[0], rtol=1e-4, atol=1e-4)
    assert len(asked) == 4 and quick._maps() is not None


def test_steps_of_one_loop_and_of_many_go_on_in_one_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    plain = Llama(foreign("llama").model.float())
    quick, loop, turns = quicken(plain), Full.step_quickly, iter([True, False, False, True, False, True])
    monkeypatch.setattr(Full, "step_quickly", lambda *given: loop(*given) if next(turns) else None)
    ids = torch.randint(0, plain.vocab_size, (1, 36))
    with torch.no_grad():
        state = other = plain(ids[:, :30], None)[1]
        places = set()
        for at in range(30, 36):
            (logits, state), (expected, other) = (
                lm(ids[:, at : at + 1], s) for lm, s in ((quick, state), (plain, other))
            )
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
            places.add(state.layers[0]["k"].data_ptr())
    assert len(places) == 1


@pytest.mark.parametrize("lengths", [(5, 9, 7), (6, 6, 6, 6), (1, 30, 2, 3, 4, 5, 6, 7), (5, 9)])
@pytest.mark.parametrize("eight", [False, True])
def test_several_sequences_go_through_all_layers_in_one_loop(
    lengths: tuple[int, ...], eight: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    plain = Llama(foreign("llama").model.float())
    quick = quicken(plain)
    if eight:
        plain, quick = Int8().apply(plain), Int8().apply(quick)
    asked = []
    loop = Full.step_quickly
    monkeypatch.setattr(Full, "step_quickly", lambda *given: asked.append(given[1].mask) or loop(*given))
    ids = torch.randint(0, plain.vocab_size, (len(lengths), 61))
    prompts = [[7, 8, *row[:length].tolist()] for row, length in zip(ids, lengths, strict=True)]
    with torch.no_grad():
        (logits, state), (expected, other) = quick.read_padded(prompts, 2), plain.read_padded(prompts, 2)
        for at in range(40, 44):
            if at == 42:
                rows = torch.arange(len(ids) - 1, 0, -1)
                ids, state, other = ids[rows], state.select(rows), other.select(rows)
            (logits, state), (expected, other) = (
                lm(ids[:, at : at + 1], s) for lm, s in ((quick, state), (plain, other))
            )
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert sum(mask is not None for mask in asked) == 4


POLICIES = (
    Sinks(16, 3), Sinks(35, 4), Window(12), SnapKV(16, 8, 3), H2O(16, 5), H2O(12, 12), H2O(45, 9),
    Quantised(8, 4, 8), Quantised(4, 3, 0), Quantised(8, 2, 60),
    Quest(4, 16, 1), Quest(4, 17, 0, together=True), Quest(3, 7, 0), TokenSelect(16, 2, 4),
    TokenSelect(9, 0, 3, threshold=2.0), TokenSelect(10, 2, 3, four_bits=True),
)  # fmt: skip


def _settings(policy: Policy) -> str:
    return f"{type(policy).__name__} {vars(policy)}"


@pytest.mark.parametrize("policy", POLICIES, ids=_settings)
@pytest.mark.parametrize("piece", [5, 256])
def test_policies_choose_in_loops_what_they_choose_in_torch(
    policy: Policy, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    monkeypatch.setattr("paceline.context._steps.PIECE", piece)
    plain = Llama(foreign("llama").model.float()).under(policy)
    quick = quicken(plain)
    taken = []
    loop = type(policy).step_quickly
    monkeypatch.setattr(type(policy), "step_quickly", lambda *given: taken.append(loop(*given)) or taken[-1])
    ids = torch.randint(0, plain.vocab_size, (1, 61))
    with torch.no_grad():
        state = other = plain(ids[:, :30], None)[1]
        for at in range(30, 61):
            (logits, state), (expected, other) = quick(ids[:, at : at + 1], state), plain(ids[:, at : at + 1], other)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
            meters = quick.policy.meters()
            plain(ids[:, at : at + 1], other)
            assert meters.keys() == plain.policy.meters().keys()
    assert len([one for one in taken if one is not None]) >= 31


def test_scratch_is_as_large_as_the_blocks_that_loops_write() -> None:
    loops = pytest.importorskip("paceline.core.step_numba")
    assert loops.BLOCK == _steps.BLOCK


@pytest.mark.parametrize("policy", [SnapKV(16, 8, 3), Quantised(8, 4, 8), Quantised(4, 3, 0)], ids=_settings)
@pytest.mark.parametrize("tokens", [2, 3, 4])
def test_policies_read_drafts_in_loops(policy: Policy, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    monkeypatch.setattr("paceline.context._steps.PIECE", 8)
    plain = Llama(foreign("llama").model.float()).under(policy)
    quick, taken, loop = quicken(plain), [], type(policy).step_quickly
    monkeypatch.setattr(type(policy), "step_quickly", lambda *given: taken.append(loop(*given)) or taken[-1])
    ids = torch.randint(0, plain.vocab_size, (1, 60))
    with torch.no_grad():
        state = other = plain(ids[:, :30], None)[1]
        for piece in ids[:, 30:].split(tokens, dim=1):
            (logits, state), (expected, other) = quick(piece, state), plain(piece, other)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    assert len(taken) == -(-30 // tokens) and all(taken) and state.nbytes == other.nbytes


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("activations", [8, 16])
def test_few_bits_of_a_quick_model_are_those_of_the_plain_one(
    bits: int, activations: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    plain = Llama(foreign("llama").model.float())
    few = RTN(bits, activations)
    one, two = few.apply(quicken(plain)), few.apply(plain)
    ids = torch.randint(0, plain.vocab_size, (1, 9))
    state = other = None
    with torch.no_grad():
        for at in range(9):
            (logits, state), (expected, other) = one(ids[:, at : at + 1], state), two(ids[:, at : at + 1], other)
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_eight_bits_of_a_quick_model_are_those_of_the_plain_one() -> None:
    plain = Llama(foreign("llama").model.float())
    ids = torch.randint(0, plain.vocab_size, (1, 9))
    with torch.no_grad():
        (_, state), (_, other) = (lm(ids, None) for lm in (Int8().apply(quicken(plain)), Int8().apply(plain)))
        one, two = (Int8().apply(lm)(ids[:, :1], s)[0] for lm, s in ((quicken(plain), state), (plain, other)))
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_models_that_help_are_quick_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("paceline.lm.quick.LEAST", 1)
    torch.manual_seed(0)
    settings = Config(256, 16, 24, ("attention(heads=2)",), "text")
    save_model(build(settings), settings, tmp_path / "draft")
    opened = open_lm(str(tmp_path / "draft"))
    _, how = strategy(f"speculative(draft={str(tmp_path / 'draft')!r})", opened)
    assert isinstance(how, Speculative)
    draft = how.follower.lm
    assert isinstance(draft, LayeredDecoder) and any(isinstance(m, QuickLinear) for m in draft.decoder.modules())


def test_a_model_that_nothing_makes_quicker_stays() -> None:
    from paceline.lm.table import Table

    table = Table(torch.zeros(3, 3))
    assert quicken(table) is table


def test_compiled_loops_leave_torch_its_threads() -> None:
    """numba tells OpenMP to take all cores, which torch takes for its own setting: results would change by bits."""
    code = """
import torch
from paceline.compress._rows import few_rows, kernels
torch.set_num_threads(1)
few_rows(torch.ones(1, 8), torch.ones(2, 8), torch.ones(2))
assert kernels() is not None
print(torch.get_num_threads())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=100)
    assert done.stdout.split() == ["1"]
