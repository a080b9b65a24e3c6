"""What every cache policy and every way to read a prompt promises: whatever lies in `context/` is tested here."""

import pytest
import torch
from _foreign import SIZES, foreign
from _lms import lean

from paceline.context._contract import Place, Policy
from paceline.context._reader import Reader, Reading
from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.lm.huggingface.llama import Llama

MODEL = lean("llama")
IDS = torch.randint(SIZES["vocab_size"], (2, 24), generator=torch.Generator().manual_seed(0))
NAMES = methods("context")


def policies() -> list[Policy]:
    return [p for name in NAMES for p in load("context", name).example() if isinstance(p, Policy)]


def readers() -> list[Reader]:
    return [r for name in NAMES for r in load("context", name).example() if isinstance(r, Reader)]


def label(value: object) -> str:
    return f"{type(value).__name__} {getattr(value, 'tokens', '')}"


every_policy = pytest.mark.parametrize("policy", policies(), ids=label)
every_reader = pytest.mark.parametrize("reader", readers(), ids=label)


def in_pieces(lm, ids, sizes, state=None):
    outs = []
    for piece in ids.split(sizes, dim=1):
        logits, state = lm(piece, state)
        outs.append(logits)
    return torch.cat(outs, dim=1), state


def same(a, b) -> bool:
    return close(a, b, torch.float64)


def held(state) -> int:
    """The most tokens that any layer remembers keys of."""
    return max(layer["k"].shape[2] for layer in state.layers)


@pytest.mark.parametrize("method", NAMES)
def test_every_method_has_an_example(method: str) -> None:
    made = load("context", method).example()
    assert made and all(isinstance(x, Policy | Reader) for x in made)


@pytest.mark.parametrize("method", [n for n in NAMES if hasattr(load("context", n), "full_budget")])
def test_a_full_budget_is_no_policy(method: str) -> None:
    expected, _ = in_pieces(MODEL, IDS, [10, 7, 1, 1, 1, 4])
    for policy in load("context", method).full_budget(IDS.shape[1]):
        if isinstance(policy, Reader):
            continue
        actual, _ = in_pieces(MODEL.under(policy), IDS, [10, 7, 1, 1, 1, 4])
        assert same(actual, expected)


@every_policy
def test_it_is_exact_only_if_it_says_so(policy: Policy) -> None:
    full, _ = in_pieces(MODEL, IDS, [16, *[1] * 8])
    read, _ = in_pieces(MODEL.under(policy), IDS, [16, *[1] * 8])
    assert same(read, full) == policy.exact


@every_policy
@pytest.mark.parametrize("sizes", [[24], [10, 14], [9, 9, 6]])
def test_what_is_evicted_is_really_gone(policy: Policy, sizes: list[int]) -> None:
    lm, state = MODEL.under(policy), None
    for piece in IDS.split(sizes, dim=1):
        _, state = lm(piece, state)
        most = policy.tokens if policy.evicts else state.length
        assert held(state) <= most
        storages = {
            x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for y in state.layers for x in y.values()
        }
        if policy.evicts:
            assert sum(storages.values()) <= sum(x.nbytes for y in state.layers for x in y.values()) == state.nbytes
    if policy.evicts:
        assert state.nbytes < MODEL(IDS, None)[1].nbytes


@every_policy
def test_reading_in_pieces_changes_nothing_where_it_says_so(policy: Policy) -> None:
    lm = MODEL.under(policy)
    whole, state = lm(IDS, None)
    next_whole, _ = in_pieces(lm, IDS[:, :5], 1, state)
    cuts = {"any": [[1] * 24, [5, 1, 11, 7]], "several": [[5, 4, 8, 7]], "none": []}[policy.pieces]
    for sizes in cuts:
        pieces, state = in_pieces(lm, IDS, sizes)
        assert same(pieces, whole)
        assert same(in_pieces(lm, IDS[:, :5], 1, state)[0], next_whole)


@every_policy
@pytest.mark.parametrize("steps", [1, 2])
def test_states_are_values(policy: Policy, steps: int) -> None:
    """Forked, selected, taken back: what comes afterwards is as if nothing else had been read."""
    lm = MODEL.under(policy)
    _, state = lm(IDS[:, :15], None)
    state = in_pieces(lm, IDS[:, 15:17], 1, state.keeping(8))[1]
    copy = state.fork()
    expected, _ = in_pieces(lm, IDS[:, 17:21], steps, state)
    for other in (copy, state, state.fork()):
        in_pieces(lm, IDS[:, 3:8], 1, other)
        assert same(in_pieces(lm, IDS[:, 17:21], steps, other)[0], expected)
    turned = state.select(torch.tensor([1, 0, 1]))
    assert same(in_pieces(lm, IDS[[1, 0, 1], 17:21], steps, turned)[0], expected[[1, 0, 1]])
    further = in_pieces(lm, IDS[:, 2:6], 1, state)[1]
    assert same(in_pieces(lm, IDS[:, 17:21], steps, further.rewind(4))[0], expected)
    assert further.rewind(4).length == 17


@every_policy
def test_rows_are_read_as_alone(policy: Policy) -> None:
    lm = MODEL.under(policy)
    together, _ = in_pieces(lm, IDS, [14, 3, *[1] * 7])
    for row in range(2):
        alone, _ = in_pieces(lm, IDS[row : row + 1], [14, 3, *[1] * 7])
        assert same(together[row : row + 1], alone)


@every_policy
def test_masks_are_honoured_or_refused(policy: Policy) -> None:
    lm = MODEL.under(policy)
    assert lm.pads == policy.masks
    if not policy.masks:
        with pytest.raises(PacelineError, match="masks"):
            lm.read_padded([[1, 2, 3], [4]])
        return
    q, k, v = torch.randn(3, 1, 2, 6, 8, dtype=torch.float64).unbind()
    mask = torch.ones(6, 6, dtype=torch.bool).tril()
    mask[3:, 0] = False
    memory = policy.empty(1, 2, 8, q)
    seen, _ = policy.attend(q, k, v, memory, Place(0, 1, 0, mask[None, None]))
    v = v.clone()
    v[:, :, 0] += 1
    other, _ = policy.attend(q, k, v, policy.empty(1, 2, 8, q), Place(0, 1, 0, mask[None, None]))
    assert same(seen[:, :, 3:], other[:, :, 3:]) and not same(seen, other)


@every_policy
def test_memory_has_the_batch_first_and_starts_empty(policy: Policy) -> None:
    memory = policy.empty(3, 2, 8, torch.empty(0, dtype=torch.float64))
    assert memory and all(len(x) == 3 for x in memory.values())
    assert not any(x.numel() for x in memory.values())
    assert not policy.cuts or all(x.ndim == 4 for x in memory.values())


@every_policy
def test_the_engine_decodes_with_it(policy: Policy) -> None:
    stream = generate(MODEL.under(policy), IDS[0], Greedy(), 12)
    assert len(stream.all()) == 12
    if policy.evicts:
        full = generate(MODEL, IDS[0], Greedy(), 12)
        full.all()
        assert stream.counts.state_bytes < full.counts.state_bytes


@every_policy
def test_meters_are_shares(policy: Policy) -> None:
    in_pieces(MODEL.under(policy), IDS, [20, *[1] * 4])
    assert all(0 <= value <= 2 for value in policy.meters().values())


@every_reader
def test_a_prepared_model_reads_a_prompt_and_goes_on(reader: Reader) -> None:
    ids = torch.tensor([[5, 0, 6, 7, 1, 8, 2, 9, 10, 3 + 2, 6, 7]])
    lm = reader.prepare(MODEL)
    assert isinstance(lm, Reading) and lm.vocab_size == MODEL.vocab_size
    for start in (None, lm.initial_state(1)):
        logits, state = lm(ids, start)
        assert logits.shape == (1, 1, lm.vocab_size) and state.length < ids.shape[1]
        further, after = lm(ids[:, :3], state)
        assert further.shape == (1, 3, lm.vocab_size) and after.length == state.length + 3
        steps, _ = in_pieces(lm, ids[:, :3], 1, state)
        assert same(steps, further)
        assert same(lm(ids[:, :3], after.rewind(3))[0], further)
    tokens = generate(lm, ids[0], Greedy(), 6).all()
    assert len(tokens) == 6 and tokens[0] == int(logits.argmax())


@every_reader
def test_a_reader_refuses_models_that_cannot(reader: Reader) -> None:
    with pytest.raises(PacelineError, match="lean Llama-like"):
        reader.prepare(foreign("gpt2"))


def test_the_shared_model_is_what_the_contract_needs() -> None:
    assert isinstance(MODEL, Llama) and MODEL.depth == 2 and MODEL.heads == 2 * MODEL.groups
