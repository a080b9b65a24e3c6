"""The contract of the objectives, for every file of the family."""

import pickle

import pytest
import torch
from torch.nn import functional

from paceline.core.discovery import load, methods, part
from paceline.core.errors import PacelineError
from paceline.objectives._contract import IGNORE, Objective

METHODS = methods("objectives")
every_objective = pytest.mark.parametrize("method", METHODS)
sizes = pytest.mark.parametrize(("batch", "window"), [(1, 2), (1, 3), (3, 7), (16, 33), (40, 64)])


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def text(objective, batch, window, seed=0):
    return torch.randint(objective.vocab_size, (batch, window), generator=draws(seed))


def build(method) -> Objective:
    return load("objectives", method).example()


@every_objective
def test_the_example_is_one(method):
    assert isinstance(build(method), Objective) and type(build(method)) is part("objectives", method)
    assert part("objectives", method)().vocab_size == 256  # bytes, unless told otherwise


@every_objective
@sizes
def test_shapes_tokens_and_questions(method, batch, window):
    objective = build(method)
    made = objective.apply(text(objective, batch, window), draws())
    n = objective.length(window)
    assert made.inputs.shape == made.targets.shape == made.mask.shape == (batch, n)
    assert made.inputs.dtype == made.targets.dtype == torch.int64 and made.mask.dtype == torch.bool
    assert torch.equal(made.targets != IGNORE, made.mask) and made.mask.any(1).all()
    known = objective.vocab_size + objective.extra_tokens
    assert ((made.sequence >= 0) & (made.sequence < known)).all()
    assert torch.equal(made.targets[made.mask], made.sequence[:, 1:][made.mask])  # what is asked is what follows


@every_objective
@sizes
def test_no_token_is_lost(method, batch, window):
    objective = build(method)
    windows = text(objective, batch, window)
    for seed in range(20):
        assert torch.equal(objective.restore(objective.apply(windows, draws(seed))), windows)


@every_objective
def test_it_is_deterministic_under_a_seed_alone(method):
    objective, torch_state = build(method), torch.get_rng_state()
    windows = text(objective, 8, 40)
    one, same, other = (objective.apply(windows, draws(seed)) for seed in (3, 3, 4))
    assert torch.equal(one.sequence, same.sequence) and torch.equal(one.targets, same.targets)
    assert method == "causal" or not torch.equal(one.targets, other.targets)
    again = pickle.loads(pickle.dumps(objective)).apply(windows, draws(3))
    assert torch.equal(again.sequence, one.sequence) and torch.equal(torch.get_rng_state(), torch_state)


@every_objective
def test_the_loss_is_finite_naive_and_the_same_however_the_batch_is_split(method):
    objective = build(method)
    made = objective.apply(text(objective, 6, 20), draws())
    known = objective.vocab_size + objective.extra_tokens
    logits = torch.randn(*made.inputs.shape, known, generator=draws(), dtype=torch.float64, requires_grad=True)
    loss = objective.loss(logits, made)
    loss.backward()
    assert loss.isfinite() and logits.grad is not None and logits.grad.isfinite().all()
    assert (logits.grad[~made.mask] == 0).all()  # what is not asked teaches nothing
    nats = [
        -logits[row, place].log_softmax(-1)[made.targets[row, place]] for row, place in made.mask.nonzero().tolist()
    ]
    torch.testing.assert_close(loss, torch.stack(nats).mean())
    parts = functional.cross_entropy(logits[:2].flatten(0, 1), made.targets[:2].flatten(), reduction="sum")
    parts = parts + functional.cross_entropy(logits[2:].flatten(0, 1), made.targets[2:].flatten(), reduction="sum")
    torch.testing.assert_close(loss, parts / made.mask.sum())


@every_objective
def test_the_optimum_of_a_solvable_case_is_reached(method):
    """Text of one token: a table of what follows learns all but where spans begin, so the loss falls towards it."""
    objective = build(method)
    windows = torch.full((64, 24), 2)
    known = objective.vocab_size + objective.extra_tokens
    table = torch.zeros(known, known, requires_grad=True)
    optimizer = torch.optim.Adam([table], lr=0.3)
    for step in range(150):
        made = objective.apply(windows, draws(step))
        loss = objective.loss(table[made.inputs], made)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    made = objective.apply(windows, draws(1_000))
    flat, asked = made.inputs[made.mask], made.targets[made.mask]
    counts = torch.zeros(known, known).index_put((flat, asked), torch.ones(len(flat)), accumulate=True)
    best = -(counts * (counts / counts.sum(1, keepdim=True).clamp(min=1)).clamp(min=1e-9).log()).sum() / counts.sum()
    assert objective.loss(table[made.inputs], made).item() == pytest.approx(best.item(), abs=0.1)


@every_objective
def test_a_window_of_one_token_is_refused(method):
    objective = build(method)
    with pytest.raises(PacelineError, match="give at least 2"):
        objective.apply(torch.zeros(1, 1, dtype=torch.long), draws())


@every_objective
def test_extra_tokens_lie_behind_the_texts_own(method):
    objective = build(method)
    if objective.extra_tokens:
        tokens = [objective.end, *map(objective.mode, "RSX"), *map(objective.sentinel, range(objective.sentinels))]
        assert tokens == list(range(objective.vocab_size, objective.vocab_size + objective.extra_tokens))
        with pytest.raises(PacelineError, match="There is no mode 'Q'"):
            objective.mode("Q")
