"""What every tokenization and every byte view promises: whatever lies in `tokens/` is tested here."""

import pytest
import torch

from paceline.core.discovery import load, methods
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.tokens._contract import END, ByteView, Tokenization
from paceline.tokens._toy import vocabulary

NAMES = methods("tokens")
EVERY = [(name, made) for name in NAMES for made in load("tokens", name).example()]
TEXTS = [b"", b"a", b"abacabbaab", bytes(range(256)), "naïve façade".encode(), b"\xff\xfe\x80"]
IDS = torch.tensor([list(b"abacab"), list(b"bbacca")])

every_view = pytest.mark.parametrize("view", [made for _, made in EVERY if isinstance(made, ByteView)])
every_tokenization = pytest.mark.parametrize(
    "tokenization", [vocabulary(), *(made for _, made in EVERY if isinstance(made, Tokenization))]
)


def same(a, b) -> bool:
    return close(a, b, torch.float64)


@pytest.mark.parametrize("method", NAMES)
def test_every_method_has_an_example(method: str) -> None:
    assert load("tokens", method).example()
    assert all(isinstance(made, ByteView | Tokenization) for made in load("tokens", method).example())


@every_tokenization
@pytest.mark.parametrize("text", TEXTS)
def test_any_bytes_come_back_and_always_by_the_same_tokens(tokenization: Tokenization, text: bytes) -> None:
    ids = tokenization.encode(text)
    assert tokenization.decode(ids) == text and tokenization.encode(text) == ids
    assert all(0 <= token < tokenization.vocab_size for token in ids)


@every_view
def test_probabilities_sum_to_one(view: ByteView) -> None:
    logits, _ = view(IDS)
    assert logits.shape == (2, 6, END + 1) and view.vocab_size == END + 1
    assert same(logits.exp().sum(-1), torch.ones(2, 6, dtype=torch.float64))


@every_view
@pytest.mark.parametrize("sizes", [[6], [1] * 6, [2, 1, 3]])
def test_whole_is_pieces_is_steps_from_any_state(view: ByteView, sizes: list[int]) -> None:
    expected, end = view(IDS)
    state, said = view.initial_state(2), []
    for piece in IDS.split(sizes, dim=1):
        logits, state = view(piece, state)
        said.append(logits)
    assert same(torch.cat(said, dim=1), expected)
    assert state.length == end.length == 6


@every_view
def test_batched_is_alone_and_rows_can_be_chosen(view: ByteView) -> None:
    both, state = view(IDS)
    for row in range(2):
        alone, _ = view(IDS[row : row + 1])
        assert same(alone[0], both[row])
    more = torch.tensor([[97], [98], [99]])
    logits, chosen = view(more, state.select(torch.tensor([1, 0, 1])))
    assert chosen.batch == 3
    for row, origin in enumerate((1, 0, 1)):
        expected, _ = view(torch.cat((IDS[origin], more[row]))[None])
        assert same(logits[row, 0], expected[0, -1])


@every_view
def test_a_fork_goes_its_own_way_and_what_is_taken_back_is_as_if_it_had_not_been(view: ByteView) -> None:
    _, state = view(IDS[:, :3], view.initial_state(2).keeping(3))
    fork = state.fork()
    far, after = view(IDS[:, 3:], state)
    view(torch.tensor([[98, 98], [97, 97]]), fork)
    again, _ = view(IDS[:, 3:], fork)
    assert same(again, far)
    assert after.kept >= 3 and after.rewind(0).length == 6
    back = after.rewind(3)
    assert back.length == 3
    assert same(view(IDS[:, 3:], back)[0], far)
    with pytest.raises(PacelineError, match="take back"):
        after.rewind(7)


@every_view
def test_states_count_their_bytes_and_are_refused_by_others(view: ByteView) -> None:
    _, state = view(IDS)
    assert state.nbytes > 0 and state.batch == 2
    with pytest.raises(PacelineError, match="select some"):
        view(IDS[:1], state)
    with pytest.raises(PacelineError, match="another model's"):
        view(IDS, load("tokens", "byte_ensemble").example()[0].initial_state(2)) if not hasattr(view, "members") else (
            view(IDS, load("tokens", "exact_bytes").example()[0].initial_state(2))
        )


@every_view
def test_it_generates(view: ByteView) -> None:
    made = generate(view, list(b"aba"), Greedy(), 5).all()
    ids = torch.tensor([[*b"aba", *made]])
    logits, _ = view(ids[:, :-1])
    assert logits[0, 2:].argmax(-1).tolist() == made
