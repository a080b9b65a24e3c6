"""The contract of the tasks, for every file of the family that has an `example`, and the same for text."""

import importlib.util
import math
import pickle
import shutil
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from paceline.core.discovery import load, methods, part
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Generated, Task
from paceline.data._corpus import prepare
from paceline.data._reader import Document
from paceline.data.induction import Induction
from paceline.data.recall import Recall
from paceline.data.selective_copy import SelectiveCopy
from paceline.data.text import Text

TASKS = [method for method in methods("data") if issubclass(part("data", method), Task)]  # the others are selectors
METHODS = [method for method in TASKS if hasattr(load("data", method), "example")]
CASES = [(method, size) for method in METHODS for size in ("example", "default")]
MISSING = {
    "digits": (importlib.util.find_spec("sklearn") is None, "scikit-learn is not installed"),
    "keywords": (shutil.which("espeak-ng") is None, "espeak-ng is not on PATH"),
}


def marked(case):
    missing, reason = MISSING.get(case[0], (False, ""))
    return pytest.param(case, id="-".join(case), marks=pytest.mark.skipif(missing, reason=reason))


every_case = pytest.mark.parametrize("case", [marked(case) for case in CASES])


def build(case) -> Task:
    return load("data", case[0]).example() if case[1] == "example" else part("data", case[0])()


def same(one: Batch, other: Batch) -> bool:
    return torch.equal(one.ids, other.ids) and torch.equal(one.targets, other.targets)


def asked_columns(targets):
    """Only the positions where any sequence is asked: long sequences would need much memory as one-hot logits."""
    return targets[:, (targets != IGNORE).any(0)]


def one_hot(answers, vocab_size):
    return torch.nn.functional.one_hot(answers, vocab_size).float()


@every_case
def test_a_task_says_what_it_is(case):
    task = build(case)
    assert isinstance(task, Task) and type(task) is part("data", case[0]) and task.name == case[0]
    assert task.title and task.metric and task.better in ("lower", "higher")
    description = task.describe()
    assert description.endswith(".") and "\n" not in description and len(description) < 250
    assert task.ceiling is None or task.floor is None or (task.ceiling > task.floor) == (task.better == "higher")


@every_case
def test_batches_are_decided_by_seed_and_step_alone(case):
    task, twin = build(case), build(case)
    torch.manual_seed(1)
    batch, before = task.batch(8, seed=3, step=5), torch.get_rng_state()
    torch.rand(7)
    task.batch(4, 0, 0)  # whatever else was drawn
    assert same(task.batch(8, seed=3, step=5), batch) and same(twin.batch(8, seed=3, step=5), batch)
    torch.manual_seed(1)
    task.batch(8, seed=3, step=6)
    assert torch.equal(torch.get_rng_state(), before)  # the global generator is left alone
    others = [task.batch(8, seed, step) for seed, step in ((3, 6), (4, 5), (5, 3), (0, 5))]
    assert not any(torch.equal(other.ids, batch.ids) for other in others)


@every_case
def test_evaluation_is_fixed_and_is_no_training_batch(case):
    task = build(case)
    fixed = task.evaluation()
    torch.manual_seed(77)
    assert same(task.evaluation(), fixed) and same(build(case).evaluation(), fixed)
    assert len(fixed.ids) == task.items
    assert not any(same(task.batch(task.items, seed, 0), fixed) for seed in range(5))


@every_case
@pytest.mark.parametrize("size", [1, 64])
def test_shapes_tokens_and_questions(case, size):
    task = build(case)
    for batch in (task.evaluation(), *(task.batch(size, 0, step) for step in range(20))):
        assert batch.ids.shape == batch.targets.shape == (len(batch.ids), task.length)
        assert batch.ids.dtype == batch.targets.dtype == torch.int64
        assert ((batch.ids >= 0) & (batch.ids < task.vocab_size)).all()
        asked = batch.targets != IGNORE
        assert ((batch.targets[asked] >= 0) & (batch.targets[asked] < task.vocab_size)).all()
        assert asked.any(1).all()  # every sequence has a score


@every_case
def test_scores_count_right_answers_per_sequence(case):
    task = build(case)
    targets = asked_columns(task.evaluation().targets)
    asked = targets != IGNORE
    right = one_hot(targets.clamp(min=0), task.vocab_size)
    assert (task.score(right, targets) == 1).all()
    wrong = one_hot((targets.clamp(min=0) + 1) % task.vocab_size, task.vocab_size)
    assert (task.score(wrong, targets) == 0).all()
    first = asked & (asked.cumsum(1) == 1)
    mixed = torch.where(first.unsqueeze(-1), right, wrong)
    torch.testing.assert_close(task.score(mixed, targets), 1 / asked.sum(1))


@every_case
@pytest.mark.parametrize("guess", ["random", "constant"])
def test_who_knows_nothing_scores_the_floor(case, guess):
    task = build(case)
    batches = 50 if task.length > 10_000 else 1  # a batch of long sequences needs much memory
    parts = [task.batch(2_000 // batches, seed=0, step=step) for step in range(batches)]
    targets = torch.cat([asked_columns(part.targets) for part in parts])
    answers = targets[targets != IGNORE].unique()
    assert task.floor == pytest.approx(1 / len(answers))
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(answers), targets.shape, generator=generator) if guess == "random" else 0 * targets
    scores = task.score(one_hot(answers[picks], task.vocab_size), targets)
    spread = scores.std().item() / math.sqrt(len(scores))
    assert scores.mean().item() == pytest.approx(task.floor, abs=4 * spread)


@every_case
def test_show_gives_a_string_for_each_token(case):
    task = build(case)
    shown = task.show(torch.arange(task.vocab_size))
    assert len(shown) == task.vocab_size == len(set(shown)) and all(shown)
    assert len(task.show(task.evaluation().ids[0])) == task.length and task.show(torch.zeros(0).long()) == []


@every_case
def test_a_task_survives_pickling(case):
    task = build(case)
    again = pickle.loads(pickle.dumps(task))
    assert same(again.batch(4, 1, 2), task.batch(4, 1, 2)) and again.describe() == task.describe()


def solve_recall(ids):
    """Whatever followed a key among the pairs; only values follow keys there."""
    told = {}
    for key, value in pairwise(ids):
        if value >= RECALL_KEYS[len(ids)] and value < max(ids):
            told[key] = value
    return [told.get(token) for token in ids]


def solve_selective_copy(ids):
    """The n-th token that is neither blank nor mark, at the n-th mark."""
    mark = ids[-1]
    content = [token for token in ids if token < mark - 1]
    return [content[ids[:place].count(mark)] if token == mark else None for place, token in enumerate(ids)]


def solve_induction(ids):
    """What followed the token when it was last seen."""
    follower, answers = {}, []
    for place, token in enumerate(ids):
        answers.append(follower.get(token))
        if place + 1 < len(ids):
            follower[token] = ids[place + 1]
    return answers


RECALL_KEYS = {task.length: task.keys for task in (build(("recall", "example")), build(("recall", "default")))}
SOLVERS = {"recall": solve_recall, "selective_copy": solve_selective_copy, "induction": solve_induction}


@pytest.mark.parametrize("case", [case for case in CASES if case[0] in SOLVERS], ids="-".join)
def test_every_answer_follows_from_the_sequence(case):
    task = build(case)
    assert isinstance(task, Generated) and task.ceiling == 1
    for batch in (task.evaluation(), task.batch(64, 0, 0)):
        for ids, targets in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True):
            answers = SOLVERS[case[0]](ids)
            assert all(answer == target for answer, target in zip(answers, targets, strict=True) if target != IGNORE)


def test_recall_asks_each_query_after_the_stretch_and_never_shows_an_answer():
    task = Recall(pairs=3, keys=5, values=4, stretch=7, queries=6)
    data = task.batch(200, 0, 0)
    assert (data.targets[:, : 6 + 7] == IGNORE).all() and (data.targets[:, 13:] >= 5).all()
    assert (data.ids[:, 6:13] == task.vocab_size - 1).all() and (data.ids[:, 13:] < 5).all()
    keys = data.ids[:, 0:6:2]
    assert all(len(set(row)) == 3 for row in keys.tolist())
    assert task.floor == 1 / 4 and set(data.targets[:, 13:].flatten().tolist()) == {5, 6, 7, 8}
    assert Recall(pairs=1, keys=1, values=1, stretch=0, queries=1).evaluation().ids.shape == (256, 3)


def test_induction_cannot_be_learned_by_heart():
    """The most frequent follower of each token over other sequences is no better than a guess."""
    task = Induction()
    train, test = task.batch(2_000, 0, 0), task.evaluation()
    counts = torch.zeros(16, 16)
    pairs = (train.ids[:, :-1] * 16 + train.ids[:, 1:]).flatten()
    counts.view(-1).index_add_(0, pairs, torch.ones(len(pairs)))
    scores = task.score(counts[test.ids], test.targets)
    assert scores.mean().item() == pytest.approx(1 / 16, abs=0.02)  # 4 sigma over some 7,000 answers is 0.012


@pytest.mark.parametrize("symbols", [2, 16])
def test_induction_asks_something_even_in_the_shortest_walks(symbols):
    data = Induction(symbols=symbols, length=symbols + 1).batch(500, 0, 0)
    assert (data.targets != IGNORE).any(1).all()


@pytest.mark.parametrize(
    ("task", "options", "says"),
    [
        (Recall, {"pairs": 0}, "pairs=0"),
        (Recall, {"pairs": 9}, "pairs=9"),
        (Recall, {"values": 0}, "no size below 1"),
        (Recall, {"queries": 0}, "no size below 1"),
        (Recall, {"stretch": -1}, "recall"),
        (SelectiveCopy, {"count": 0}, "count=0"),
        (SelectiveCopy, {"count": 9, "stretch": 8}, "count=9"),
        (SelectiveCopy, {"symbols": 1}, "symbols=1"),
        (Induction, {"symbols": 1}, "symbols=1"),
        (Induction, {"symbols": 16, "length": 16}, "length=16"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(task, options, says):
    with pytest.raises(PacelineError, match=says):
        task(**options)


LETTERS = "aé€😀"  # of 1, 2, 3 and 4 bytes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    generator = torch.Generator().manual_seed(0)
    documents = []
    for number in range(60):
        picks = torch.randint(26, (150,), generator=generator).tolist()
        documents.append(Document(f"d{number}", "".join(chr(97 + i) + LETTERS[i % 4] for i in picks).encode()))
    place = tmp_path_factory.mktemp("corpus")
    prepare(documents, place, heldout=0.2)
    return place


def windows(batch):
    return [bytes([*ids, targets[-1]]) for ids, targets in zip(batch.ids.tolist(), batch.targets.tolist(), strict=True)]


def test_text_windows_lie_on_their_own_side(folder):
    task = Text(folder, length=50)
    train, heldout = bytes(task.corpus.train), bytes(task.corpus.heldout)
    training = [window for step in range(20) for window in windows(task.batch(16, 0, step))]
    measured = windows(task.evaluation())
    assert all(window in train and window not in heldout for window in training)
    assert all(window in heldout and window not in train for window in measured)
    for batch in (task.evaluation(), task.batch(16, 0, 0)):
        assert torch.equal(batch.ids[:, 1:], batch.targets[:, :-1])


def test_text_training_reaches_the_first_and_the_last_byte(folder):
    task = Text(folder, length=50)
    task._corpus = replace(task.corpus, train=task.corpus.train[:53])
    assert set(windows(task.batch(64, 0, 0))) == {bytes(task.corpus.train[i : i + 51]) for i in range(3)}


@pytest.mark.parametrize(("size", "count"), [(51, 1), (100, 1), (101, 2), (151, 3), (50 * 200, 128)])
def test_text_evaluation_spreads_without_overlap(folder, size, count):
    task = Text(folder, length=50)
    text = torch.arange(size).remainder(251).to(torch.uint8).numpy()
    task._corpus = replace(task.corpus, heldout=text)
    data = task.evaluation()
    assert len(data.ids) == count
    if count > 1:  # from the first byte to the last
        assert windows(data)[0] == bytes(text[:51]) and windows(data)[-1] == bytes(text[-51:])
    if size == 151:
        assert torch.equal(data.ids.flatten(), torch.arange(150))


def test_text_batches_are_decided_by_seed_and_step_alone(folder):
    task, twin = Text(folder, length=50), Text(folder, length=50)
    assert same(task.batch(8, 3, 5), twin.batch(8, 3, 5)) and same(task.evaluation(), twin.evaluation())
    assert not any(same(task.batch(8, 3, 5), task.batch(8, seed, step)) for seed, step in ((3, 6), (4, 5), (5, 3)))


def test_text_scores_bits_per_byte(folder):
    task = Text(folder, length=50)
    data = task.evaluation()
    uniform = task.score(torch.zeros(*data.ids.shape, 256), data.targets)
    torch.testing.assert_close(uniform, torch.full_like(uniform, 8.0))
    assert task.floor == 8.0
    sure = task.score(100 * one_hot(data.targets, 256), data.targets)
    torch.testing.assert_close(sure, torch.zeros_like(sure))
    half = one_hot(data.targets, 256) + one_hot((data.targets + 1) % 256, 256)
    torch.testing.assert_close(task.score(100 * half, data.targets), torch.ones_like(sure))
    assert task.in_loss_unit(math.log(2) * 3) == pytest.approx(3) and task.loss_unit == "bits per byte"


@pytest.mark.parametrize("text", ["", "plain", "aé€😀", "😀😀", "é", "a\0b", "\u0301\u200d", "\U0010ffff"])
def test_text_shows_utf8_as_it_is(folder, text):
    data = text.encode()
    shown = Text(folder).show(torch.tensor(list(data), dtype=torch.long))
    assert "".join(shown) == text and len(shown) == len(data)
    starts = [place for place, byte in enumerate(data) if byte & 0xC0 != 0x80]
    assert [place for place, piece in enumerate(shown) if piece] == starts


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"\xa9a", ["\ufffd", "a"]),  # a window that begins inside a character
        (b"\x82\xacab", ["\ufffd", "\ufffd", "a", "b"]),
        (b"a\xe2\x82", ["a", "\ufffd", "\ufffd"]),  # and one that ends inside
        (b"\xe2\x82a", ["\ufffd", "\ufffd", "a"]),
        (b"\xff\xc3\xa9", ["\ufffd", "é", ""]),
        (b"\x80\x80\x80\x80\xc3\xa9", ["\ufffd"] * 4 + ["é", ""]),
        (b"\xed\xa0\x80", ["\ufffd"] * 3),  # a surrogate is no character
    ],
)
def test_text_shows_broken_bytes_one_by_one(folder, data, shown):
    assert Text(folder).show(torch.tensor(list(data))) == shown


def test_text_pickles_without_its_bytes(folder):
    task = Text(folder, length=50)
    frozen = pickle.dumps(task)
    assert len(frozen) < 1_000
    assert same(pickle.loads(frozen).batch(4, 1, 2), task.batch(4, 1, 2))


def test_text_that_is_too_short_or_missing_is_refused(folder, tmp_path):
    with pytest.raises(PacelineError, match="too few for one window of 50001"):
        Text(folder, length=50_000)
    with pytest.raises(PacelineError, match="length=0 reads nothing"):
        Text(folder, length=0)
    with pytest.raises(PacelineError, match="holds no readable corpus"):
        Text(tmp_path)
