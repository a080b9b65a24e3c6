"""The contract of the selectors, for every file of the family `data` that holds one."""

import pickle

import pytest
import torch

from paceline.core.discovery import load, methods, part
from paceline.core.errors import PacelineError
from paceline.data._selection import Losses, Selector, losses_of
from paceline.lm.table import Table

SELECTORS = [method for method in methods("data") if issubclass(part("data", method), Selector)]
every_selector = pytest.mark.parametrize("method", SELECTORS)


def some(count, seed=0):
    draws = torch.Generator().manual_seed(seed)
    return Losses(*torch.rand(2, count, generator=draws, dtype=torch.float64))


def test_there_are_selectors():
    assert {"color_filter", "random_selection"} <= set(SELECTORS)


@every_selector
def test_the_example_is_one(method):
    selector, losses = load("data", method).example()
    assert type(selector) is part("data", method) and len(selector.select(losses, 0.5)) == 1


@every_selector
@pytest.mark.parametrize("count", [1, 2, 17, 1000])
@pytest.mark.parametrize("fraction", [1e-9, 0.1, 0.29, 0.5, 1 / 3, 1.0])
def test_what_is_kept_is_a_subset_in_order_and_of_the_size_that_was_asked_for(method, count, fraction):
    kept = part("data", method)().select(some(count), fraction).tolist()
    assert len(kept) == max(1, int(fraction * count + 1e-9))
    assert kept == sorted(set(kept)) and set(kept) <= set(range(count))


@every_selector
def test_it_is_deterministic_and_touches_no_global_generator(method):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    kept = part("data", method)().select(some(100), 0.25)
    assert torch.equal(torch.get_rng_state(), before)
    torch.rand(5)
    assert torch.equal(pickle.loads(pickle.dumps(part("data", method)())).select(some(100), 0.25), kept)


@every_selector
def test_a_tighter_selection_is_part_of_a_looser_one(method):
    selector, losses = part("data", method)(), some(200)
    kept = [set(selector.select(losses, fraction).tolist()) for fraction in (0.05, 0.1, 0.5, 1.0)]
    assert kept[0] < kept[1] < kept[2] < kept[3] == set(range(200))


@every_selector
@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_a_share_out_of_range_is_refused(method, fraction):
    with pytest.raises(PacelineError, match="above 0, up to 1"):
        part("data", method)().select(some(5), fraction)


@pytest.mark.parametrize(
    ("prior", "conditional", "says"),
    [([1.0], [1.0, 2.0], "the same documents"), ([], [], "no document"), ([1.0], [float("nan")], "no finite number")],
)
def test_losses_that_make_no_sense_are_refused(prior, conditional, says):
    with pytest.raises(PacelineError, match=says):
        Losses(torch.tensor(prior), torch.tensor(conditional))


def naive_losses(table, documents, length):
    """One token after the other, each after the one before it: a table remembers no more."""
    chances, found = table.softmax(-1), []
    for ids in documents:
        pairs = [(ids[i], ids[i + 1]) for i in range(len(ids) - 1)]
        found.append(sum(-chances[a, b].log().item() for a, b in pairs) / len(pairs))
    return torch.tensor(found, dtype=torch.float64)


@pytest.mark.parametrize("length", [1, 3, 8, 100])
@pytest.mark.parametrize("batch", [1, 4, 64])
def test_losses_are_those_of_the_documents_however_they_are_cut_and_batched(length, batch):
    draws = torch.Generator().manual_seed(1)
    table = torch.randn(7, 7, generator=draws, dtype=torch.float64)
    documents = [torch.randint(7, (size,), generator=draws) for size in (2, 9, 3, 4, 25, 17, 2, 10)]
    found = losses_of(Table(table), documents, length, batch)
    torch.testing.assert_close(found, naive_losses(table, documents, length), rtol=1e-12, atol=0)


def test_documents_and_windows_of_nothing_are_refused():
    table = Table(torch.zeros(3, 3))
    with pytest.raises(PacelineError, match="Document 1 has 1 tokens"):
        losses_of(table, [torch.tensor([0, 1]), torch.tensor([0])])
    with pytest.raises(PacelineError, match="at least 1 of each"):
        losses_of(table, [torch.tensor([0, 1])], length=0)
