"""Facts about SpinQuant that only it promises."""

import pytest
import torch
from _lms import lean

from paceline.claims.compress._authors import same_as_authors
from paceline.compress import _cayley, _grid
from paceline.compress._cayley import cayley, nearest_rotation
from paceline.compress._contract import example_ids
from paceline.compress._learn import Grids, Rotations, _learning, learned, random_rotations
from paceline.compress._save import load, save
from paceline.compress.rtn import RTN
from paceline.compress.spinquant import SpinQuant
from paceline.core.errors import PacelineError

IDS = torch.tensor([[3, 1, 4, 1, 5, 2, 6, 5, 3]])


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_rotations_alone_change_nothing(kind):
    lm = lean(kind)
    turned = SpinQuant(16, 16, 16, steps=2, ids=example_ids()).apply(lm)
    torch.testing.assert_close(turned(IDS, None)[0], lm(IDS, None)[0], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(turned.embedding, lm.embedding)


@pytest.mark.parametrize("weights", [4, 16])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_what_is_learned_by_is_the_model_that_is_made(kind, weights):
    lm = lean(kind)
    rotations = random_rotations(lm, 3)
    model = _learning(lm, Rotations(rotations.stream, rotations.values), Grids(weights, 4, 4))
    x, _ = model.through(model.embed(IDS) @ rotations.stream, ({},) * 2, 0)
    made = SpinQuant(weights, 4, 4, steps=0, seed=3, rounding="nearest").apply(lm)
    torch.testing.assert_close(model.head(x), made(IDS, None)[0], rtol=1e-5, atol=1e-6)  # scales are float32


def test_learning_lowers_the_loss_and_what_it_gives_is_orthogonal():
    lm, losses = lean("llama"), []
    lm.out.weight.data *= 30  # so that there is something to lose
    found = learned(
        lm,
        random_rotations(lm, 0),
        example_ids()[:1],
        12,
        0.05,
        Grids(4, 4, 4),
        report=lambda step, loss: losses.append(loss),
    )
    assert min(losses[6:]) < losses[0]
    for rotation in found.all:
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(len(rotation), dtype=torch.float64))


def test_cayley_steps_stay_near_the_rotations_and_go_down():
    draws = torch.Generator().manual_seed(0)
    rotation, wanted = (nearest_rotation(torch.randn(12, 12, generator=draws)) for _ in range(2))
    begun = (rotation * wanted).sum()
    for _ in range(20):
        rotation, _ = cayley(rotation, wanted.T, 0.05)
    assert (rotation * wanted).sum() > begun + 1
    assert (rotation @ rotation.T - torch.eye(12)).abs().max() < 1e-3
    exact = nearest_rotation(rotation)
    torch.testing.assert_close(exact @ exact.T, torch.eye(12, dtype=torch.float64))


@pytest.mark.parametrize(
    ("module", "name", "other"), [(_cayley, "ROUNDS", 1), (_grid, "POWER", 2.0), (_grid, "SHRUNK", 0.5)]
)
def test_the_authors_figures_tell_small_departures(module, name, other, monkeypatch):
    assert same_as_authors()
    monkeypatch.setattr(module, name, other)
    assert not same_as_authors()


HOWS = [
    SpinQuant(steps=1, ids=example_ids()),
    SpinQuant(16, 8, 8, steps=0),
    RTN(4, group=8),
    RTN(8, cache=4),
]


@pytest.mark.parametrize("how", HOWS, ids=lambda how: f"{type(how).__name__} {how.weights} {how.cache}")
def test_a_saved_model_loads_back_equal(how, tmp_path):
    lm = lean("llama")
    made = how.apply(lm)
    save(made, tmp_path / "small")
    other = lean("llama")
    other.embedding = other.embedding + 1  # nothing of it is used
    again = load(tmp_path / "small", other)
    assert torch.equal(again(IDS, None)[0], made(IDS, None)[0])
    assert torch.equal(lm(IDS, None)[0], lean("llama")(IDS, None)[0])


def test_broken_folders_are_refused(tmp_path):
    lm, folder = lean("llama"), tmp_path / "small"
    with pytest.raises(PacelineError, match="has no compressed maps"):
        save(lm, folder)
    with pytest.raises(PacelineError, match="holds no compressed model"):
        load(folder, lm)
    save(RTN().apply(lm), folder)
    with pytest.raises(PacelineError, match=r"other shapes|no map"):
        load(folder, lean("qwen3"))
    content = (folder / "tensors.safetensors").read_bytes()
    (folder / "tensors.safetensors").write_bytes(content[:-1] + b"x")
    with pytest.raises(PacelineError, match="does not match its checksum"):
        load(folder, lm)


def test_the_cache_takes_the_bytes_of_its_bits():
    lm = lean("llama")
    plain, small = (model(IDS, None)[1] for model in (lm, RTN(16, cache=4).apply(lm)))
    tokens, groups, width = IDS.shape[1], lm.groups, lm.width
    assert plain.nbytes == 2 * 2 * tokens * groups * width * 8
    assert small.nbytes == 2 * 2 * tokens * groups * (width // 2 + 8 + 1)  # codes, a step and a zero
    assert small.rewind(3).nbytes < small.nbytes
