"""Hidden facts and options: what is asked can be known, and rivals get equal bytes."""

import pytest
import torch

pytest.importorskip("transformers")

from paceline.claims import _recall
from paceline.claims._options import KINDS, OPTIONS, Options, agreement
from paceline.claims._pretrained import TINY
from paceline.claims._read_once import KEPT, read_context, read_whole
from paceline.claims._retrieval import ALL, Haystacks, open_tiny_or
from paceline.claims.context import gemfilter, quest, set_based, tokenselect
from paceline.context.full import Full
from paceline.context.h2o import H2O
from paceline.context.quest import Quest
from paceline.context.sinks import Sinks
from paceline.context.tokenselect import TokenSelect
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.race.contestant import Event, Job

MODEL = open_tiny_or(TINY)
LENGTHS = (700, 900)


def job(task, seed, folder):
    """A cell whose race lies in the folder: what its cells share is kept in the race's, four levels up."""
    return Job(Event(task, 0, 1, 1), seed, 0.0, folder / "model" / "task" / "0" / "0")


def test_every_answer_stands_in_the_haystack_of_the_stated_length():
    task = Haystacks(TINY, LENGTHS, 2, 8)
    kinds = set()
    for seed in range(6):
        item = task.drawn(seed, MODEL)
        text = MODEL.words.decode(item.context)
        assert len(item.context) == LENGTHS[seed % 2] and len(item.text) == 8
        for question in item.questions:
            kinds.add(question.kind)
            asked = MODEL.words.decode(question.ids).rpartition("? ")[2]
            statement = (asked + MODEL.words.decode(question.answer)).strip().rstrip(".")
            assert statement[1:] in text
        assert task.drawn(seed, MODEL) == item != task.drawn(seed + 6, MODEL)
    assert kinds == {"passkey", "needle", "multi_key"}


def test_all_questions_are_about_different_facts_of_the_same_haystack():
    few, item = (Haystacks(TINY, LENGTHS, asked).drawn(1, MODEL) for asked in (2, ALL))
    assert item.context == few.context and all(question in item.questions for question in few.questions)
    assert len({MODEL.words.decode(question.ids) for question in item.questions}) == len(item.questions) == ALL


POLICIES = [Full(), Quest(8, 64, 1), TokenSelect(64, 4, 8), Sinks(64), H2O(64, 32)]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_a_context_that_was_read_for_others_is_remembered_as_if_read_anew(policy, tmp_path):
    task = Haystacks(TINY, LENGTHS, 2)
    lm, ids, at = MODEL.lm.under(policy), task.drawn(1, MODEL).context, job(task, 1, tmp_path)
    with torch.no_grad():
        _, anew = read_whole(lm, ids)
        first, flops = read_context(at, lm, ids)
        again, same = read_context(at, lm, ids)
    for state in (first, again):
        assert (state.length, state.nbytes, state.of) == (anew.length, anew.nbytes, anew.of)
        for mine, theirs in zip(state.layers, anew.layers, strict=True):
            assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert flops == same > 0


def test_of_the_contexts_the_last_few_are_kept(tmp_path):
    task, lm = Haystacks(TINY, (700,), 2), MODEL.lm.under(Full())
    with torch.no_grad():
        for seed in range(KEPT + 2):
            read_context(job(task, seed, tmp_path), lm, task.drawn(seed, MODEL).context)
    left = {path.name for path in tmp_path.rglob("context-*.safetensors")}
    assert left == {f"context-{seed}.safetensors" for seed in range(2, KEPT + 2)}


def test_one_question_goes_through_the_kinds():
    task = Haystacks(TINY, LENGTHS, 1)
    assert [task.drawn(seed, MODEL).questions[0].kind for seed in range(3)] == ["passkey", "needle", "multi_key"]


def test_too_many_questions_are_refused():
    with pytest.raises(PacelineError, match="1, 2 or 6 questions"):
        Haystacks(TINY, LENGTHS, 3)


def test_both_protocols_measure_what_the_model_says_of_the_whole_text(tmp_path):
    task = Haystacks(TINY, LENGTHS, 2, 8)
    item = task.drawn(1, MODEL)
    hidden, shown = (
        protocol(job(task, 1, tmp_path), lambda *_: Full(), lambda *_: None)
        for protocol in (_recall.hidden, _recall.shown)
    )
    for number, question in enumerate(item.questions):
        logits, _ = MODEL.lm(torch.tensor([[*item.context, *question.ids, *question.answer]]), None)
        chances = logits[0, -len(question.answer) - 1 : -1].log_softmax(-1)
        bits = -chances[range(len(question.answer)), question.answer].mean() / torch.tensor(2.0).log()
        assert close(torch.tensor(hidden.items[number]), bits, torch.float32)
        assert close(torch.tensor(shown.items[number]), bits, torch.float32)
    assert hidden.meters["read"] == shown.meters["read"] == 1.0
    assert {"right", "text_log2"} <= set(hidden.meters) and shown.ledger.flops > hidden.ledger.flops > 0


def test_rivals_of_quest_hold_the_bytes_that_it_reads(tmp_path):
    task = Haystacks(TINY, (960,), 1)
    method = Quest(4, 64, 1)

    def rival(lm, tokens):
        return H2O(quest.as_many(method, lm, tokens), 1)

    read, held = (
        _recall.hidden(job(task, 0, tmp_path), policy, lambda *_: None).meters["read"]
        for policy in (lambda *_: method, rival)
    )
    assert held == pytest.approx(read, rel=0.05) and read < 1


def test_rivals_of_tokenselect_read_no_less_than_it_does(tmp_path):
    task = Haystacks(TINY, (1_024,), 1)
    read = {
        name: tokenselect.run(job(task, 0, tmp_path), name, lambda *_: None).meters["read"]
        for name in (tokenselect.VOTING, tokenselect.MORE, tokenselect.WINDOW)
    }
    assert read[tokenselect.MORE] == pytest.approx(read[tokenselect.VOTING], rel=0.05)
    assert read[tokenselect.WINDOW] == pytest.approx(read[tokenselect.VOTING], rel=0.05)


def test_gemfilter_and_its_rivals_keep_a_tenth_and_the_sham_the_question(tmp_path):
    ids = torch.arange(200)[None]
    kept = gemfilter.RandomTokens(1, 50).choose(MODEL.lm, ids)[0].tolist()
    assert kept[-gemfilter.TAIL :] == list(range(200 - gemfilter.TAIL, 200)) and len(set(kept)) == 50
    assert kept == sorted(kept)
    task = Haystacks(TINY, (1_000,), 1)
    read = {
        name: gemfilter.run(job(task, 0, tmp_path), name, lambda *_: None).meters["read"]
        for name in (gemfilter.METHOD, gemfilter.SNAP, gemfilter.HEAVY, gemfilter.SHAM)
    }
    assert all(share == pytest.approx(0.1, abs=0.01) for share in read.values())


def test_a_set_agrees_with_itself_and_its_sham_does_not(tmp_path):
    task = Options(TINY, 1)
    found = {
        name: set_based.run(job(task, 0, tmp_path), name, lambda *_: None)
        for name in (set_based.METHOD, set_based.ORDERED, set_based.SHAM)
    }
    meters = {name: outcome.meters for name, outcome in found.items()}
    assert meters[set_based.METHOD]["agreement"] == pytest.approx(1.0, abs=1e-6)
    assert meters[set_based.METHOD]["worst"] == pytest.approx(meters[set_based.METHOD]["best"], abs=1e-4)
    assert meters[set_based.SHAM]["agreement"] < 1 - 1e-5 and meters[set_based.ORDERED]["agreement"] < 1 - 1e-5
    assert 0 < meters[set_based.METHOD]["hidden"] < 1


def test_questions_have_one_right_option_of_a_kind_of_their_own():
    for choice in Options(TINY, 2).drawn(5):
        kinds = [next(kind for kind, words in KINDS.items() if word in words) for word in choice.options]
        assert kinds[0] in choice.ask and len(set(kinds)) == OPTIONS


def test_agreement_is_of_the_worst_pair():
    chances = torch.tensor([[0.5, 0.5], [0.7, 0.3], [0.2, 0.8]])
    assert agreement(chances) == pytest.approx(0.5)
