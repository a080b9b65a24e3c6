"""Set-based prompting: no order of the parts changes anything, and a set of one part is plain text."""

import itertools

import pytest
import torch
from _foreign import foreign
from _lms import lean

from paceline.context.set_based import SetBased, layout
from paceline.context.window import Window
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy

MARKS = SetBased(0, 1, 2)
LM = lean("llama")
SETS = MARKS.prepare(LM)
PARTS = ([5, 6], [7], [8, 9, 10, 3])


def prompt(parts, before=(4, 4, 5), after=(9, 3)) -> torch.Tensor:
    inside = [token for part in parts for token in (*part, 1)][:-1]
    return torch.tensor([[*before, 0, *inside, 2, *after]])


def test_positions_and_mask_of_a_prompt_laid_out_by_hand() -> None:
    positions, mask = layout([[1], [2, 1], [2]])
    assert positions.tolist() == [0, 1, 2, 1, 3, 4]
    rows = ["x.....", "xx....", "xxx...", "x..x..", "xxxxx.", "xxxxxx"]
    assert ["".join("x" if seen else "." for seen in row) for row in mask[0, 0].tolist()] == rows


def test_no_order_of_the_parts_changes_the_outputs() -> None:
    first, last = SETS(prompt(PARTS), None)
    plain = []
    for order in itertools.permutations(PARTS):
        logits, state = SETS(prompt(order), None)
        assert close(logits, first, torch.float64)
        for token in (3, 7, 7):  # what follows, too
            step = torch.tensor([[token]])
            (logits, state), (expected, last) = SETS(step, state), SETS(step, last)
            assert close(logits, expected, torch.float64)
        last = SETS(prompt(PARTS), None)[1]
        plain.append(LM(torch.tensor([[4, 4, 5, *itertools.chain(*order), 9, 3]]), None)[0][:, -1:])
    assert not any(close(a, b, torch.float64) for a, b in itertools.combinations(plain, 2))


def test_it_is_transformers_with_these_positions_and_this_mask() -> None:
    model = foreign("llama").model
    positions, mask = layout([[3], [2, 1, 4], [2]])
    ids = torch.tensor([[4, 4, 5, *itertools.chain(*PARTS), 9, 3]])
    bias = torch.zeros(1, 1, 12, 12, dtype=torch.float64).masked_fill(~mask, -torch.inf)
    with torch.no_grad():
        expected = model(ids, position_ids=positions[None], attention_mask=bias).logits[:, -1:]
    assert close(SETS(prompt(PARTS), None)[0], expected, torch.float32)  # its norms are in float32


def test_a_set_of_one_part_is_plain_text() -> None:
    text = torch.tensor([[4, 4, 5, 8, 9, 10, 3, 9, 3]])
    marked = prompt([[8, 9, 10, 3]])
    logits, state = SETS(marked, None)
    expected, plain = LM(text, None)
    assert close(logits, expected[:, -1:], torch.float64)
    assert close(SETS(text, state)[0], LM(text, plain)[0], torch.float64)
    assert generate(SETS, marked[0], Greedy(), 12).all() == generate(LM, text[0], Greedy(), 12).all()


def test_what_follows_stands_after_the_longest_part() -> None:
    """Rewound and read again, in pieces or at once."""
    _, state = SETS(prompt(PARTS), None)
    assert state.length == 12 and state.layers[-1]["shift"].tolist() == [3]
    following = torch.tensor([[3, 4, 5, 6]])
    expected, after = SETS(following, state)
    again, _ = SETS(following[:, 1:], after.rewind(3))
    assert close(again, expected[:, 1:], torch.float64)
    positions, mask = layout([[3], [2, 1, 4], [6]])
    ids = torch.tensor([[4, 4, 5, *itertools.chain(*PARTS), 9, 3, 3, 4, 5, 6]])
    whole, _ = LM(ids, None, positions[None], mask)
    assert close(expected, whole[:, -4:], torch.float64)


def test_several_sets_and_sets_at_the_start() -> None:
    ids = torch.tensor([[0, 5, 1, 6, 7, 2, 8, 0, 9, 9, 1, 3, 2, 4]])
    turned = torch.tensor([[0, 6, 7, 1, 5, 2, 8, 0, 3, 1, 9, 9, 2, 4]])
    assert MARKS.parse(ids[0].tolist()) == [[[]], [[5], [6, 7]], [[8]], [[9, 9], [3]], [[4]]]
    assert close(SETS(ids, None)[0], SETS(turned, None)[0], torch.float64)


@pytest.mark.parametrize("tokens", [[4, 1, 5], [4, 0, 5], [4, 2, 5], [0, 5, 0, 6, 2, 7]])
def test_marks_that_do_not_fit_are_refused(tokens: list[int]) -> None:
    with pytest.raises(PacelineError, match=r"do not fit|must go on"):
        SETS(torch.tensor([tokens]), None)


def test_what_cannot_work_is_refused() -> None:
    with pytest.raises(PacelineError, match="must go on"):
        SETS(prompt(PARTS, after=()), None)
    with pytest.raises(PacelineError, match="one prompt at a time"):
        SETS(prompt(PARTS).repeat(2, 1), None)
    with pytest.raises(PacelineError, match="policy"):
        MARKS.prepare(LM.under(Window(5)))
    with pytest.raises(PacelineError, match="different"):
        SetBased(1, 1, 2)
    with pytest.raises(PacelineError, match="at most 64"):
        SETS(prompt(PARTS, before=[4] * 60), None)
