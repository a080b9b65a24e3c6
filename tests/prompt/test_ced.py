"""What cross-entropy difference promises: costs as computed by hand, adapters that are PEFT's, alone and kept."""

import os

import pytest
import torch
from _tiny import PLANS

from paceline.adapt._chosen import fill
from paceline.adapt._contract import trainable
from paceline.adapt.lora import NAME, LoRA
from paceline.core.errors import PacelineError
from paceline.core.tolerances import close
from paceline.lm.checkpoint import save_model
from paceline.lm.config import Config, build
from paceline.lm.open import Bytes, open_lm
from paceline.prompt import _bank
from paceline.prompt._bank import Bank, Scorer, scorer
from paceline.prompt._contract import Budget, Counted, Written
from paceline.prompt._kinds import Kind
from paceline.prompt._shots import Drawn, Nearest, Template
from paceline.prompt.ced import CED
from paceline.prompt.studio import Studio, ask

TEXTS = ("ab ab\nba\n\n", "1234\n4\n\n", "cd cd cd\ndc\n\n")
PAIRS = (("ab ab", "ba"), ("12 12", "21"), ("cd cd", "dc"), ("34 34", "43"))


def tiny(plan: str = "attention") -> Scorer:
    torch.manual_seed(0)
    model = build(Config(256, 16, 24, PLANS[plan], "text")).eval()
    return Scorer("tiny", model, model, Bytes())


def foreign(kind: str) -> Scorer:
    import transformers
    from _foreign import FOREIGN

    name, sizes = FOREIGN[kind]
    torch.manual_seed(0)
    config = getattr(transformers, name)(**{**sizes, "vocab_size": 256})
    inner = transformers.AutoModelForCausalLM.from_config(config).eval()
    from paceline.lm.adapted import Foreign

    return Scorer(kind, Foreign(inner).eval(), inner, Bytes())


def by_hand(model, text: str) -> float:
    """Nats per byte of a text after a line's end."""
    ids = torch.tensor([list(b"\n" + text.encode())])
    with torch.no_grad():
        logits = model.logits(ids[:, :-1])
    return torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]).item()


class Says:
    """Keeps what it was asked."""

    def __init__(self):
        self.asked: list[str] = []

    def complete(self, prompt, tokens, stop=()):
        self.asked.append(prompt)
        return Written(" yes ", len(prompt), 1)

    def nats(self, prompt, continuations):
        raise NotImplementedError

    def count(self, text):
        return len(text)


MAKERS = [*((tiny, plan) for plan in PLANS), (foreign, "llama"), (foreign, "gpt2")]


@pytest.mark.parametrize(("make", "name"), MAKERS, ids=[name for _, name in MAKERS])
def test_the_bank_costs_what_the_model_with_that_adapter_of_peft_costs(make, name):
    small = make(name)
    bank = Bank(small, [[text] for text in TEXTS], LoRA(rank=2), steps=3, rate=1e-2)
    costs = bank.costs(["xy xy", "987"])
    assert costs.shape == (2, 4)
    expected = torch.empty(2, 4)
    expected[:, 3] = torch.tensor([by_hand(small.model, text) for text in ("xy xy", "987")])
    for number in range(3):
        fresh = make(name)
        LoRA(rank=2).apply(fresh.inner)
        own = {k.replace(f".{NAME}.", "."): p for k, p in trainable(fresh.inner).items()}
        fill(own, bank.tensors(number), "base_model.model.")
        expected[:, number] = torch.tensor([by_hand(fresh.model, text) for text in ("xy xy", "987")])
    assert close(costs, expected, torch.float32)
    assert all((costs[:, n] - costs[:, 3]).abs().min() > 1e-4 for n in range(3))  # and tuning moved them


def test_training_side_by_side_is_training_each_alone_as_peft_would():
    small, fresh = tiny(), tiny()
    bank = Bank(small, [[text] for text in TEXTS], LoRA(rank=2), steps=3, rate=1e-2)
    bank.prepare()
    LoRA(rank=2).apply(fresh.inner)
    own = {k.replace(f".{NAME}.", "."): p for k, p in trainable(fresh.inner).items()}
    begin = bank.begun()
    fill(own, begin, "base_model.model.")
    optimizer = torch.optim.Adam(own.values(), lr=1e-2)
    ids = torch.tensor([list(b"\n" + TEXTS[1].encode())])
    for _ in range(3):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(fresh.model.logits(ids[:, :-1])[0], ids[0, 1:]).backward()
        optimizer.step()
    for name, tensor in bank.tensors(1).items():
        assert close(tensor, own[name.removeprefix("base_model.model.")].detach(), torch.float32), name
        assert not torch.equal(tensor, begin[name])


def test_the_scorer_is_left_as_it_was():
    small = tiny()
    before = {name: tensor.clone() for name, tensor in small.inner.state_dict().items()}
    logits = small.model.logits(torch.arange(9)[None])
    Bank(small, [TEXTS], steps=2).costs(["xy"])
    assert all(torch.equal(before[name], tensor) for name, tensor in small.inner.state_dict().items())
    assert torch.equal(logits, small.model.logits(torch.arange(9)[None]))
    assert all(parameter.grad is None for parameter in small.inner.parameters())


def test_a_cluster_learns_all_of_its_texts():
    one = Bank(tiny(), [[TEXTS[0]]], steps=2, rate=1e-2)
    both = Bank(tiny(), [TEXTS[:2]], steps=2, rate=1e-2)
    gain = (one.costs([TEXTS[1]]) - both.costs([TEXTS[1]]))[0, 0]
    assert gain > 0
    assert Bank(tiny(), [TEXTS], steps=1)._length(0) == 3


def test_what_was_trained_is_kept_and_an_interrupted_bank_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(_bank, "ROOM", 8)  # a lot of one adapter at a time

    def bank(texts=TEXTS, **settings):
        return Bank(tiny(), [[text] for text in texts], steps=2, folder=tmp_path, **settings)

    class Stop(Exception):
        pass

    def stop(done, of, loss):
        if done == 2:
            raise Stop

    first = bank()
    with pytest.raises(Stop):
        first.prepare(stop)
    assert first.trained == 2 and len(list(tmp_path.iterdir())) == 2
    again = bank()
    costs = again.costs(["xy"])
    assert again.trained == 1 and torch.equal(costs, first.costs(["xy"]))
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}
    whole = Bank(tiny(), [[text] for text in TEXTS], steps=2)
    assert torch.equal(costs, whole.costs(["xy"])) and whole.trained == 3
    more = bank([*TEXTS[1:], "new\n"])
    more.prepare()
    other = bank(rate=2e-3)
    other.prepare()
    assert more.trained == 1 and other.trained == 3
    broken = sorted(tmp_path.iterdir(), key=os.path.getmtime)[0]
    broken.write_bytes(b"no weights")
    last = bank()
    assert torch.equal(last.costs(["xy"]), costs) and last.trained == 1


def test_progress_is_told(tmp_path):
    told: list[tuple[int, int, float]] = []
    CED(PAIRS, tiny(), steps=1).prepare(lambda *given: told.append(given))
    assert [(done, of) for done, of, _ in told] == [(4, 4)] and told[0][2] > 0


def test_the_difference_is_the_tuned_models_cost_less_the_base_models():
    small = tiny()
    ced = CED(PAIRS, small, steps=3, rate=1e-2, rank=2, template="Q {question}\nA {answer}\n")
    found = ced.differences(["ab"])
    bank = Bank(small, [[f"Q {q}\nA {a}\n"] for q, a in PAIRS], LoRA(2, 8.0), 3, 1e-2)
    costs = bank.costs(["Q ab\nA"])
    assert close(found, costs[:, :4] - costs[:, 4:], torch.float32)
    assert ced.rank("ab") == found[0].argsort().tolist()
    meters = ced.meters()
    assert meters["helped"] == (found < 0).float().mean() and close(
        torch.tensor(meters["gain"]), -found.min(), torch.float32
    )
    assert meters["adapters_trained"] == 4 and meters["tokens_read"] > 0


def test_a_demonstration_like_the_question_is_chosen_and_shown_last():
    shown = (("aaaa aaaa", "a"), ("7777 7777", "7"), ("(()) (())", "("))
    ced = CED(shown, tiny(), steps=8, rate=2e-2, k=2)
    assert [ced.rank(question)[0] for question in ("7777 7", "aaa aaa", "(())")] == [1, 0, 2]
    model = Says()
    answer = ced.run({"question": "7777 7"}, Counted(model))
    other = shown[ced.rank("7777 7")[1]]
    assert model.asked == [f"{other[0]}\n{other[1]}\n\n7777 7777\n7\n\n7777 7\n"]
    assert answer.text == "yes" and answer.steps[0][1] + "7777 7\n" == model.asked[0]


def test_the_sham_gives_the_adapters_to_other_demonstrations():
    small = tiny()
    true, sham = (
        CED(PAIRS, small, steps=3, rate=1e-2, seed=1, sham=x).differences(["ab ab"])[0] for x in (False, True)
    )
    assert sorted(true.tolist()) == sorted(sham.tolist()) and not torch.equal(true, sham)


def test_clusters_share_an_adapter_and_put_likes_together():
    shown = (("aaaa aa", "a"), ("7777 77", "7"), ("aaaa a", "a"), ("777 777", "7"), ("aa aaaa", "a"), ("7 77 7", "7"))
    for seed in range(20):  # one that grows from both kinds
        ced = CED(shown, tiny(), clusters=2, steps=8, rate=2e-2, seed=seed)
        ced.prepare()
        if len({tuple(sorted(m)) for m in ced._members} & {(0, 2, 4), (1, 3, 5)}) == 2:
            break
    else:
        pytest.fail("no seed separates the two kinds")
    found = ced.differences(["77 77"])[0]
    assert len(set(found.tolist())) == 2 and sorted(ced.rank("77 77")[:3]) == [1, 3, 5]
    assert sorted(ced.rank("aaa aaa")[:3]) == [0, 2, 4]


def test_it_is_a_component_in_place_of_the_usual_demonstrations():
    ced = CED(PAIRS, tiny(), steps=1, k=2)
    graph = Studio(
        {"shots": ced.component(), "reader": ask("{texts}{question}\n", many=("texts",))},
        [("question", "shots.question"), ("question", "reader.question"), ("shots.texts", "reader.texts")],
        {"question": Kind.TEXT}, ["reader.text"],
    )  # fmt: skip
    assert graph.run({"question": "ab"}, Counted(Says())).text == "yes"
    assert graph.values["shots.texts"] == tuple(ced.shown("ab")) and len(ced.shown("ab")) == 2


def test_rivals_choose_by_words_or_by_chance():
    assert Nearest(PAIRS, "bm25").rank("12 and 12") == [1, 0, 2, 3]
    doubled = Nearest((*PAIRS, ("12 12", "other")), "bm25").rank("12")
    assert set(doubled[:2]) == {1, 4} and sorted(doubled) == list(range(5))
    drawn = Drawn(PAIRS, seed=3)
    assert drawn.rank("a") == drawn.rank("a") and len({tuple(drawn.rank(str(n))) for n in range(20)}) > 5


def test_a_budget_that_is_too_small_gives_no_answer_but_what_was_chosen():
    answer = CED(PAIRS, tiny(), steps=1).run({"question": "ab"}, Counted(Says(), Budget(tokens=3)))
    assert (answer.text, answer.complete) == ("", False) and answer.steps[0][0] == "demonstrations"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: CED((), tiny()), "give at least one"),
        (lambda: CED((("a", ""),), tiny()), "none blank"),
        (lambda: CED(PAIRS, tiny(), k=5), "k=5 of 4"),
        (lambda: CED(PAIRS, "https://host/v1#name"), "need the weights of a model"),
        (lambda: CED(PAIRS, "nowhere"), "no folder nowhere"),
        (lambda: CED(PAIRS, tiny(), clusters=5), "5 clusters of 4"),
        (lambda: CED(PAIRS, tiny(), template="{question}"), "then {answer}"),
        (lambda: Template("{answer} {question}"), "then {answer}"),
        (lambda: CED(PAIRS, tiny(), steps=0).prepare(), "steps=0"),
        (lambda: Bank(tiny(), [["a"]], LoRA(dropout=0.1)), "without dropout"),
        (lambda: Bank(tiny(), [["a"]], LoRA(targets=("nothing",))), "can be adapted"),
        (lambda: Bank(tiny(), [[""]]).prepare(), "no token"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_in_a_sentence(make, words):
    with pytest.raises(PacelineError, match=words) as refused:
        make()
    assert str(refused.value).endswith(".") and "\n" not in str(refused.value)


def test_a_model_on_disk_can_choose(tmp_path):
    small = tiny()
    save_model(small.inner, Config(256, 16, 24, PLANS["attention"], "text"), tmp_path / "m")
    opened = scorer(str(tmp_path / "m"))
    assert opened.mark == small.mark and not any(p.requires_grad for p in opened.inner.parameters())
    left, right = (CED(PAIRS, by, steps=2).differences(["ab"]) for by in (small, opened))
    assert torch.equal(left, right)


def test_smollm2_chooses_and_its_base_cost_is_that_of_the_opened_model():
    small = scorer("smollm2")
    shown = (("Capital of Peru?", "Lima"), ("7 + 1 =", "8"))
    ced = CED(shown, small, steps=2, rate=2e-3, rank=1, targets=("v_proj", "down_proj"))
    assert [row[0] for row in ced.rank_each(["Capital of Egypt?", "5 + 3 ="])] == [0, 1]
    ids = torch.tensor([small.ids("5 + 3 =\n", 99)])
    logits = open_lm("smollm2").lm(ids[:, :-1])[0]
    cost = ced.prepare().costs(["5 + 3 =\n"])[0, -1]
    assert close(cost, torch.nn.functional.cross_entropy(logits[0], ids[0, 1:]), torch.float32)
