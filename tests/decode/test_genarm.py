"""GenARM: guided probabilities and the loss of its reward models, by hand."""

import math

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate
from paceline.decode._reward import preference_loss, text_reward
from paceline.decode.genarm import GenARM
from paceline.lm.table import Table

BASE, HELPFUL, HARMLESS = [0.5, 0.3, 0.2], [0.2, 0.2, 0.6], [0.1, 0.8, 0.1]


def says(p: list[float]) -> Table:
    """A model that says the same after every token; its logits are off by a constant, which must not count."""
    return Table((torch.tensor(p, dtype=torch.float64).log() + 5).expand(3, 3))


def product(weights: tuple[float, float], beta: float) -> Float[Tensor, " 3"]:
    p = [
        b * h ** (weights[0] / beta) * s ** (weights[1] / beta) for b, h, s in zip(BASE, HELPFUL, HARMLESS, strict=True)
    ]
    return torch.tensor(p, dtype=torch.float64) / sum(p)


@pytest.mark.parametrize(("weights", "beta"), [((1.0, 0.0), 1.0), ((0.3, 0.7), 0.5), ((1.0, -1.0), 2.0)])
def test_the_distribution_is_the_product_of_powers(weights: tuple[float, float], beta: float) -> None:
    guided = GenARM([says(HELPFUL), says(HARMLESS)], weights, beta).prepare(says(BASE))
    logits, _ = guided(torch.tensor([[0, 2]]), None)
    assert close(logits.softmax(-1), product(weights, beta).expand(1, 2, 3), torch.float64)


@pytest.mark.usefixtures("unchecked")
def test_draws_follow_it() -> None:
    strategy = GenARM([says(HELPFUL), says(HARMLESS)], (0.3, 0.7), 0.5, temperature=1.0)
    tokens = generate(says(BASE), [0], strategy, 20_000, seed=1).all()
    shares = torch.bincount(torch.tensor(tokens), minlength=3) / len(tokens)
    expected = product((0.3, 0.7), 0.5)
    assert ((shares - expected).abs() < 4 * (expected * (1 - expected) / len(tokens)).sqrt()).all()


def exactly(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def test_the_loss_of_a_pair_by_hand() -> None:
    p = torch.tensor([[[0.5, 0.5], [0.25, 0.75], [0.9, 0.1]]], dtype=torch.float64)
    won = text_reward(p.log(), torch.tensor([[0, 1, 0]]), torch.tensor([[False, True, True]]))
    lost = text_reward(p.log() + 3, torch.tensor([[1, 0, 1]]))  # logits off by a constant
    assert close(won, exactly(math.log(0.75 * 0.9)), torch.float64)
    assert close(lost, exactly(math.log(0.5 * 0.25 * 0.1)), torch.float64)
    odds = (0.75 * 0.9 / (0.5 * 0.25 * 0.1)) ** 0.2
    assert close(preference_loss(won, lost, beta=0.2)[None], exactly(-math.log(odds / (1 + odds))), torch.float64)


def test_training_by_the_loss_puts_the_preferred_token_first() -> None:
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    for _ in range(20):
        won, lost = (text_reward(logits, torch.tensor([[token]])) for token in (2, 0))
        (gradient,) = torch.autograd.grad(preference_loss(won, lost, beta=1.0), logits)
        logits = (logits - gradient).detach().requires_grad_()
    assert logits.argmax() == 2 and logits.argmin() == 0 and logits[0, 0, 1] == 0


@pytest.mark.parametrize(
    ("count", "weights", "beta"), [(0, (), 1.0), (2, (1.0,), 1.0), (1, (), 0.0), (1, (), math.nan)]
)
def test_what_cannot_be_is_refused(count: int, weights: tuple[float, ...], beta: float) -> None:
    with pytest.raises(PacelineError, match="genarm: "):
        GenARM([says(HELPFUL)] * count, weights, beta)
    with pytest.raises(PacelineError, match=r"3 tokens and the reward model 5"):
        GenARM(Table(torch.zeros(5, 5))).prepare(says(BASE))
