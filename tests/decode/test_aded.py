"""The tri-gram table, the search over it, trees read at once, and adaptation over a stream of prompts."""

import random

import pytest
import torch
from _lms import decoding_lm

from paceline.decode._contract import Counts, Run
from paceline.decode._generate import generate
from paceline.decode._tree import TreeDraft, keep_way, read_tree, reads_trees
from paceline.decode._trigrams import MOST, STEP, Trigrams, likeliest, most_visited, search
from paceline.decode.aded import ADED
from paceline.decode.greedy import Greedy

PROMPT = [3, 1, 4, 1, 5, 2, 6, 5, 3, 1, 4]


def test_the_table_counts_up_to_an_end():
    table = Trigrams()
    table.read([1, 2, 3, 1, 2, 4, 1, 2, 4])
    assert table.after((1, 2)) == [(4, pytest.approx(2 * STEP)), (3, pytest.approx(STEP))]
    for _ in range(100):
        table.add((1, 2), 3)
    assert table.after((1, 2))[0] == (3, MOST)
    assert table.after((7, 7)) == []


def test_the_search_visits_what_is_heavier_more_often_and_the_way_down_follows_it():
    table = Trigrams()
    table.read([1, 2, 3, 5, 1, 2, 3, 5, 1, 2, 3, 5, 1, 2, 4, 6])
    root = search(table, (1, 2), 3, 100, random.Random(0))
    visits = {child.token: child.visits for child in root.children}
    assert root.visits == 100 == sum(visits.values())
    assert visits[3] > visits[4] > 0
    assert likeliest(root, 3, table) == [3, 5, 1]
    tokens, parents = most_visited(root, 4)
    assert tokens[0] == 3 and 4 in tokens and len(tokens) == 4
    assert all(parent < index for index, parent in enumerate(parents))


def test_a_tree_read_at_once_is_each_way_read_alone():
    lm = decoding_lm("lean llama")
    run = Run(lm, PROMPT, torch.Generator(), Counts(), 20)
    run.read(PROMPT[:-1])
    past = run.state.length
    #   last -> 7 -> 2, 9;  last -> 8 -> 2 -> 4
    draft = TreeDraft([7, 8, 2, 9, 2, 4], None, [-1, -1, 0, 0, 1, 4])
    ways = {0: [7], 1: [8], 2: [7, 2], 3: [7, 9], 4: [8, 2], 5: [8, 2, 4]}
    logits = read_tree(run, draft)
    for index, way in ways.items():
        expected = lm(torch.tensor([[*PROMPT, *way]]), None)[0][0, -1]
        torch.testing.assert_close(logits[index + 1], expected)
    keep_way(run, past, [1, 4, 5])
    assert run.state.length == len(PROMPT) + 3
    expected = lm(torch.tensor([[*PROMPT, 8, 2, 4, 6]]), None)[0][0, -1]
    torch.testing.assert_close(run.read([6])[-1], expected)
    assert draft.cut(1).tokens == [7, 8] and draft.cut(2).parents == [-1, -1, 0, 0, 1]


def test_only_full_caches_read_trees():
    assert reads_trees(decoding_lm("lean llama"))
    assert not any(reads_trees(decoding_lm(kind)) for kind in ("attention", "hybrid", "gpt2", "mamba"))


@pytest.mark.parametrize("kind", ["lean llama", "hybrid"])
def test_a_stream_of_prompts_makes_it_better_than_a_frozen_table(kind):
    lm = decoding_lm(kind)
    prompts = [[*PROMPT[:5], token] for token in (2, 7, 2, 7, 2, 7)]
    kept = {}
    for adapt in (True, False):
        strategy = ADED(adapt=adapt, patience=1000)
        kept[adapt] = []
        for prompt in prompts:
            stream = generate(lm, prompt, strategy, 24)
            assert stream.all() == generate(lm, prompt, Greedy(), 24).all()
            kept[adapt].append(stream.counts.accepted)
    assert sum(kept[True][2:]) > sum(kept[True][:2])
    assert sum(kept[True]) > sum(kept[False])


def test_a_text_that_was_learnt_is_drafted_in_whole_ways():
    lm = decoding_lm("gpt2")
    text = [*PROMPT, *generate(lm, PROMPT, Greedy(), 20).all()]
    strategy = ADED(depth=4, adapt=False)
    strategy.learn_texts([text] * 5)
    stream = generate(lm, PROMPT, strategy, 20)
    assert stream.all() == text[len(PROMPT) :]
    assert stream.counts.calls < 20
