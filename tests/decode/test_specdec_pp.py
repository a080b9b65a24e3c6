"""When SpecDec++ stops drafting, what its head learns, and from what."""

import pytest
import torch
from _lms import decoding_lm

from paceline.core.errors import PacelineError
from paceline.decode._acceptance import AcceptanceHead, acceptance_loss, collect, train_head
from paceline.decode._choice import Choice
from paceline.decode._draft import Bigram
from paceline.decode._generate import generate
from paceline.decode.specdec_pp import SpecDecPP
from paceline.lm.table import Table

PROMPT = [3, 1, 4, 1, 5]


class Fixed(AcceptanceHead):
    """Always as sure."""

    def __init__(self, width: int, sure: float) -> None:
        super().__init__(width, 0)
        self.sure = sure

    def acceptance(self, x):
        return torch.tensor(self.sure)


@pytest.mark.parametrize(
    ("sure", "threshold", "guesses"),
    [
        (0.9, 0.3, 5),  # 0.9 ** 3 = 0.729 is still enough, 0.9 ** 4 = 0.656 no more: the fifth is drafted unjudged
        (0.5, 0.3, 2),
        (1.0, 0.3, 6),  # never stops by itself: the most
        (0.0, 1.0, 6),  # no probability is above 1
        (0.0, 0.9, 2),  # the least
    ],
)
def test_a_draft_ends_where_a_refusal_is_likely(sure, threshold, guesses):
    lm = decoding_lm("lean llama")
    strategy = SpecDecPP(lm, Fixed(16, sure), threshold, guesses=6)
    stream = generate(lm, PROMPT, strategy, 1 + 3 * (guesses + 1))
    stream.all()
    assert strategy.accepted == [guesses] * 3  # the draft is the model itself


def test_the_head_is_the_authors_formula():
    head, x = AcceptanceHead(6, 2), torch.randn(3, 6)
    first, second, out = head.model[0].linear, head.model[1].linear, head.model[2]
    y = x + torch.nn.functional.silu(first(x))
    y = y + torch.nn.functional.silu(second(y))
    torch.testing.assert_close(head(x), out(y))
    torch.testing.assert_close(head.acceptance(x), torch.exp(out(y))[:, 1] / torch.exp(out(y)).sum(1))


def test_the_loss_weighs_refusals():
    logits, chances = torch.zeros(2, 2), torch.tensor([1.0, 0.25])
    assert acceptance_loss(logits, chances, 6.0).item() == pytest.approx(torch.log(torch.tensor(2.0)).item())
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    p = torch.softmax(logits[0], 0)
    by_hand = -(1.25 * p[1].log() + 6 * 0.75 * p[0].log()) / (1.25 + 6 * 0.75)
    assert acceptance_loss(logits, chances, 6.0).item() == pytest.approx(by_hand.item(), rel=1e-6)


def test_labels_are_the_chances_of_acceptance():
    draft = Bigram(5)
    target = Table(torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    x, chances = collect(target, draft, [[1, 2], [3]], 400, Choice(1.0), 0.0, seed=0)
    assert len(x) == len(chances) == 800
    mean = 0.0  # of sum_y min(p, q) over the chain's own pairs
    p = target.table.softmax(-1)
    q = draft.head(draft.embed(torch.arange(5)[None]))[0].softmax(-1)
    stationary = torch.linalg.matrix_power(p, 50)[0]
    mean = (stationary[:, None] * torch.minimum(p, q)).sum().item()
    assert chances.mean().item() == pytest.approx(mean, abs=0.05)
    own, sure = collect(draft, draft, [[1, 2]], 50, Choice(1.0), 0.3, seed=0)
    assert torch.all(sure == 1) and 20 < len(own) < 48  # where the target's token stands, nothing is learnt


def test_training_tells_accepted_guesses_from_refused_ones_and_is_kept_in_a_file(tmp_path):
    draft = Bigram(5)
    target = Table(3 * torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))
    prompts = [[token] for token in range(5)]
    head = train_head(target, draft, prompts, tokens=200, blocks=1, epochs=60, batch=64, lr=3e-2, weight=1.0, mix=0.0)
    x, chances = collect(target, draft, prompts, 200, Choice(1.0), 0.0, seed=0)
    told = head.acceptance(x)
    means = []
    for token in draft.table.float():  # the hidden state is the guess alone: its mean is the best that can be told
        rows = (x == token).all(1)
        means.append(chances[rows].mean())
        assert told[rows][0].item() == pytest.approx(means[-1].item(), abs=0.05)
    assert max(means) - min(means) > 0.3
    assert torch.equal(train_head(target, draft, prompts, tokens=20).acceptance(x),
                       train_head(target, draft, prompts, tokens=20).acceptance(x))  # fmt: skip
    head.save(tmp_path / "head.safetensors")
    assert torch.equal(AcceptanceHead.load(tmp_path / "head.safetensors").acceptance(x), told)
    strategy = SpecDecPP(draft, str(tmp_path / "head.safetensors"), temperature=1.0)
    assert len(generate(target, [1], strategy, 30).all()) == 30


def test_what_cannot_work_is_refused(tmp_path):
    with pytest.raises(PacelineError, match="cannot be run apart"):
        SpecDecPP(decoding_lm("gpt2"), AcceptanceHead(16))
    with pytest.raises(PacelineError, match="reads 8 numbers and the draft gives 4"):
        SpecDecPP(Bigram(5), AcceptanceHead(8))
    with pytest.raises(PacelineError, match="threshold must be between 0 and 1"):
        SpecDecPP(Bigram(5), AcceptanceHead(4), threshold=1.5)
    (tmp_path / "broken").write_bytes(b"no tensors")
    for name in ("broken", "missing"):
        with pytest.raises(PacelineError, match="holds no acceptance head"):
            SpecDecPP(Bigram(5), str(tmp_path / name))
