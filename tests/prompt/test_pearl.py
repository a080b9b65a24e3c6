"""What PEARL promises: plans are checked and sent back with the reason, outputs go where the plan says, pieces join."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.core.errors import PacelineError
from paceline.prompt._contract import Budget, Counted, Spent, Written
from paceline.prompt._plan import CONTEXT, Action, Argument, Plan, Step, read_action
from paceline.prompt._reading import pieces
from paceline.prompt.pearl import ACTIONS, Pearl, example, mine, quoted, read_actions, read_plan, simplify

DOCUMENT = "Henry owns the drum. Nina owns a boat. Henry lives in Lima. Nina lives in Oslo."
INPUTS = {"question": "Where does the owner of the drum live?", "document": DOCUMENT}
CHAIN = """
1. owner = FIND_OF(CTX, "the drum", "owner") : Find who owns it.
2. home = FIND_OF(CTX, owner, "home") : Find where he lives.
"""
PLAIN = {
    name: replace(action, template=f"{name} {'; '.join(f'{{{a}}}' for a in action.arguments)}")
    for name, action in ACTIONS.items()
    if not action.many
} | {"CONCAT": ACTIONS["CONCAT"]}
"""Each prompt is the action with its arguments, which a model can be made for."""


class Says:
    """Answers by a function, or by a list in turns, and keeps the prompts. A word is a token."""

    def __init__(self, says):
        self.says, self.prompts = says, []

    def complete(self, prompt, tokens, stop=()):
        self.prompts.append(prompt)
        text = self.says(prompt) if callable(self.says) else self.says[len(self.prompts) - 1]
        return Written(text, self.count(prompt), self.count(text))

    def nats(self, prompt, continuations):
        raise NotImplementedError

    def count(self, text):
        return len(text.split())


def knows(prompt: str) -> str:
    """Follows `FIND_OF` and `ANSWER` prompts of `PLAIN`."""
    facts = {"the drum; owner": "Henry", "Henry; home": "Lima", "Nina; home": "Oslo"}
    return next((f" {answer}\n" for asked, answer in facts.items() if prompt.endswith(asked)), "none")


names = st.from_regex(r"[a-z_][a-z0-9_]{0,6}", fullmatch=True)
texts = st.text(st.characters(exclude_characters='"\n\r', exclude_categories=("C", "Zl", "Zp")), max_size=20)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_plan_is_what_its_text_says(data):
    outputs = data.draw(st.lists(names, min_size=1, max_size=5, unique=True))
    steps = []
    for number, output in enumerate(outputs):
        action = ACTIONS[data.draw(st.sampled_from(sorted(ACTIONS)))]
        count = len(action.arguments) + (data.draw(st.integers(-2, 2)) if action.many else 0)
        known = st.tuples(st.sampled_from((CONTEXT, *outputs[:number])), st.just(False))
        drawn = [data.draw(st.one_of(known, st.tuples(texts, st.just(True)))) for _ in range(count)]
        steps.append(Step(output, action, tuple(Argument(*each) for each in drawn)))
    plan = Plan(tuple(steps))
    assert read_plan(str(plan), ACTIONS) == plan


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=80), st.text(alphabet='ab=(),"CTXFIND\n1. :', max_size=60)))
def test_whatever_a_model_writes_is_a_plan_or_is_refused_in_a_sentence(text):
    try:
        assert read_plan(text, ACTIONS).steps
    except PacelineError as error:
        assert str(error).endswith(".") and "\n" not in str(error)


def test_new_actions_explanations_and_talk_are_read():
    text = """Sure, here is a plan for it:
New actions:
- COUNT(CTX, X) : Count X in CTX.
- FIND(CTX, X) : Another one of this name.

1. all = FIND(CTX, "a, (b) = 'c'") : Find them (all = every one).
That gives a list.
2. ans = COUNT(CTX, all) # Count: them.
"""
    plan = read_plan(text, ACTIONS)
    assert list(plan.new) == ["COUNT"] and plan.new["COUNT"].says == "Count X in CTX."
    assert [str(step) for step in plan.steps] == [
        "all = FIND(CTX, \"a, (b) = 'c'\") : Find them (all = every one).",
        "ans = COUNT(CTX, all) : Count: them.",
    ]
    assert plan.steps[0].action == ACTIONS["FIND"] and plan.unused == ("ans",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("I do not know.", "no step"),
        ("a = FIMD(CTX, 'x')", "no action FIMD. Did you mean 'FIND'?"),
        ("a = FIND(CTX)", r"FIND\(CTX, X\) takes 2 arguments, and .* gives 1"),
        ("a = FIND(CTX, 'x', 'y')", "gives 3"),
        ("a = CONCAT()", "cannot be read"),
        ("a = FIND(CTX, b)", r"FIND\(CTX, b\) takes b, which no step gives"),
        ("a = FIND(CTX, the drum)", "quotes"),
        ("a = FIND(CTX, 'x'", "cannot be read"),
        ("a = FIND(CTX, FIND(CTX, 'x'))", "cannot be read"),
        ("a = FIND(CTX, 'x')\nb = a", "The step 'b = a' cannot be read"),
        ("a = FIND(CTX, 'x')\na = FIND(CTX, 'y')", "Two steps give a"),
        ("CTX = FIND(CTX, 'x')", "another name"),
        ("a = FIND(CTX, a)", "The steps a need one another"),
        ("a = FIND(CTX, b)\nb = FIND(CTX, a)", "a.*b need one another|b.*a need one another"),
        ("a = FIND(CTX, b)\nb = FIND(CTX, 'x')", "takes b before it is there"),
    ],
)
def test_a_plan_that_cannot_be_executed_is_refused_with_the_reason(text, says):
    with pytest.raises(PacelineError, match=says):
        read_plan(text, ACTIONS)


def test_actions_that_are_none_are_refused():
    assert read_action("- FIND_X(CTX, X) # All about X.") == Action("FIND_X", ("CTX", "X"), "All about X.")
    for line in ("FIND", "FIND(CTX, a b)", "FIND()", "FIND(CTX, CTX)", "FIND(...)"):
        with pytest.raises(PacelineError):
            read_action(line)
    with pytest.raises(PacelineError, match="field 'Y'"):
        Action("FIND", ("CTX", "X"), template="{CTX} {Y}")
    assert list(read_actions("None\nA(X) : one\nA(CTX) : two\n- B(X)")) == ["A", "B"]


def test_each_step_is_one_prompt_and_takes_what_the_plan_says():
    model, pearl = Says(knows), Pearl(CHAIN, PLAIN)
    answer = pearl.run(INPUTS, Counted(model))
    assert model.prompts == [f"FIND_OF {DOCUMENT}; the drum; owner", f"FIND_OF {DOCUMENT}; Henry; home"]
    assert answer.text == "Lima" and answer.complete and pearl.values == {"owner": "Henry", "home": "Lima"}
    assert answer.steps == (("plan", str(pearl.plan)), ("owner", "Henry"), ("home", "Lima"))
    assert pearl.meters() == {"corrections": 0.0, "steps_run": 1.0, "step_calls": 2.0}


def test_outputs_fed_to_the_wrong_step_change_the_answer():
    wrong = CHAIN.replace("owner = ", 'other = FIND_OF(CTX, "Nina", "name")\nowner = ').replace("owner, ", "other, ")
    answer = Pearl(wrong, PLAIN).run(INPUTS, Counted(Says(lambda p: "Nina" if p.endswith("name") else knows(p))))
    assert answer.text == "Henry\nOslo"


def test_what_no_step_takes_is_the_answer_and_concat_asks_nobody():
    text = 'a = FIND_OF(CTX, "the drum", "owner")\nb = FIND_OF(CTX, a, "home")\nc = CONCAT(a, "of", b)'
    model = Says(knows)
    assert Pearl(text, PLAIN).run(INPUTS, Counted(model)).text == "Henry\nof\nLima" and len(model.prompts) == 2
    two = 'a = FIND_OF(CTX, "the drum", "owner")\nb = FIND_OF(CTX, "Nina", "home")'
    assert Pearl(two, PLAIN).run(INPUTS, Counted(Says(knows))).text == "Henry\nOslo"


def test_the_usual_prompt_names_action_arguments_and_question():
    model = Says(lambda prompt: "Henry")
    Pearl('owner = FIND_OF(CTX, "the drum", "owner") : Find who owns it.').run(INPUTS, Counted(model))
    for part in (
        DOCUMENT,
        str(ACTIONS["FIND_OF"]),
        "X = the drum\nY = owner",
        INPUTS["question"],
        "(Find who owns it.)",
    ):
        assert part in model.prompts[0]
    assert "none" not in model.prompts[0]


def test_a_written_plan_is_sent_back_with_the_mistake_until_it_can_be_executed():
    bad = 'owner = FIND_WHO("the drum")'
    model = Says([bad, "owner = FIND(CTX)", CHAIN, "Henry", "Lima"])
    pearl = Pearl(actions=PLAIN, demonstrations=[("Who?", "ans = SHOWN()")])
    answer = pearl.run(INPUTS, Counted(model))
    first, second, third = model.prompts[:3]
    assert INPUTS["question"] in first and str(PLAIN["FIND_OF"]) in first and DOCUMENT not in first
    assert "Who?" in first and "ans = SHOWN()" in first
    assert bad in second and "There is no action FIND_WHO." in second
    assert "takes 2 arguments" in third and "Before that: There is no action FIND_WHO." in third
    assert answer.text == "Lima" and pearl.meters()["corrections"] == 2


def test_after_the_last_try_the_question_is_the_only_step():
    model = Says(["no", "no", "Lima"])
    pearl = Pearl(actions=PLAIN, tries=2)
    answer = pearl.run({**INPUTS, "question": 'Who is "he"?'}, Counted(model))
    assert answer.text == "Lima" and answer.complete and model.prompts[2] == f"ANSWER {DOCUMENT}; Who is 'he'?"
    assert read_plan(str(pearl.plan), PLAIN) == pearl.plan


def test_a_plan_among_the_inputs_goes_before_the_one_given():
    other = 'home = FIND_OF(CTX, "Nina", "home")'
    assert Pearl(CHAIN, PLAIN).run({**INPUTS, "plan": other}, Counted(Says(knows))).text == "Oslo"
    with pytest.raises(PacelineError, match="no action"):
        Pearl(CHAIN, PLAIN).run({**INPUTS, "plan": "a = NO(CTX)"}, Counted(Says(knows)))


def in_pieces(**action) -> tuple[Says, Pearl]:
    """A model that quotes the first sentence with the word asked for, and a pipeline that reads two sentences."""

    def says(prompt):
        text, _, word = prompt.partition("; ")
        return next((s for s in text.removeprefix("FIND ").splitlines() for s in s.split(". ") if word in s), "none")

    actions = {"FIND": replace(PLAIN["FIND"], **action)}
    return Says(says), Pearl('a = FIND(CTX, "Henry")', actions, piece=8, tokens=4)


def test_a_long_document_is_read_in_pieces_and_their_answers_once_more():
    model, pearl = in_pieces()
    answer = pearl.run(INPUTS, Counted(model))
    assert model.prompts == [
        "FIND Henry owns the drum. Nina owns a boat.; Henry",
        "FIND Henry lives in Lima. Nina lives in Oslo.; Henry",
        "FIND Henry owns the drum\nHenry lives in Lima; Henry",
    ]
    assert answer.text == "Henry owns the drum" and answer.complete
    model, pearl = in_pieces(gathers=True)
    assert pearl.run(INPUTS, Counted(model)).text == "Henry owns the drum\nHenry lives in Lima"
    assert len(model.prompts) == 2
    silent = Says(lambda prompt: " None.")
    assert pearl.run(INPUTS, Counted(silent)).text == "none" and len(silent.prompts) == 2


def test_what_is_no_quotation_counts_as_nothing():
    model, pearl = in_pieces(gathers=True, after=quoted)
    model.says = lambda prompt: "Henry  lives in Lima."
    assert pearl.run(INPUTS, Counted(model)).text == "Henry  lives in Lima."
    model.says = lambda prompt: "Henry lives in Rome."
    assert pearl.run(INPUTS, Counted(model)).text == "none"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(alphabet="ab .!?\n", max_size=30), min_size=1, max_size=8), st.integers(1, 9))
def test_pieces_lose_no_word_and_are_short_enough(parts, tokens):
    text, model = "x".join(parts), Counted(Says([]))
    if not text.strip():
        return
    found = pieces(text, tokens, model)
    assert " ".join(found).split() == text.split()
    assert all(0 < model.count(piece) <= tokens for piece in found)


def test_where_the_budget_ends_the_answer_is_what_there_is():
    model, pearl = in_pieces()
    answer = pearl.run(INPUTS, Counted(model, Budget(calls=1)))
    assert answer.text == "Henry owns the drum" and not answer.complete
    model, pearl = in_pieces()
    answer = pearl.run(INPUTS, Counted(model, Budget(calls=2)))
    assert answer.text == "Henry owns the drum\nHenry lives in Lima" and not answer.complete
    answer = Pearl(CHAIN, PLAIN).run(INPUTS, Counted(Says(knows), Budget(calls=1)))
    assert answer.steps[1:] == (("owner", "Henry"),) and not answer.complete and answer.text == ""
    writing = Pearl(actions=PLAIN).run(INPUTS, Counted(Says(["no"]), Budget(calls=1)))
    assert writing.text == "" and not writing.complete


def test_actions_are_mined_from_questions_and_merged():
    first = 'New actions:\n- COUNT(CTX, X) : Count X.\n- FIND(CTX, Y) : Else.\n\n1. a = COUNT(CTX, "falls") : Count.'
    second, third = "New actions:\n- None\n\n1. a = FIND(CTX, 'x')", "COUNT(CTX, X) : Again.\nDATE(CTX, X) : When."
    model = Says([first, second, third])
    questions = ["How often does he fall?", "Who?", "When?"]
    found = mine(questions, Counted(model))
    assert set(found) - set(ACTIONS) == {"COUNT", "DATE"} and found["COUNT"].says == "Count X."
    assert found["FIND"] == ACTIONS["FIND"] and all(q in p for q, p in zip(questions, model.prompts, strict=True))
    merging = Says(["- FIND(CTX, X) : All about X.\n- WHEN(CTX, X) : A date.", "COUNT(CTX, X) : Number."])
    fewer = simplify(found, Counted(merging), shard=len(found) // 2)
    assert set(fewer) == {"CONCAT", "FIND", "WHEN", "COUNT"} and len(merging.prompts) == 2
    for action in (action for action in found.values() if not action.many):
        assert sum(str(action) in prompt for prompt in merging.prompts) == 1
    with pytest.raises(PacelineError, match="merged the actions into none"):
        simplify(found, Counted(Says(["I will."])))
    with pytest.raises(PacelineError, match="at least one"):
        mine([], Counted(model))
    with pytest.raises(Spent):
        mine(questions, Counted(Says([first]), Budget(calls=1)))


def test_a_demonstration_is_a_plan_that_led_to_the_right_answer():
    short = 'home = FIND_OF(CTX, "Nina", "home")'
    model = Says([short, "Oslo", CHAIN, "Henry", "Lima"])
    pearl = Pearl(actions=PLAIN)
    made = pearl.refine(INPUTS["question"], DOCUMENT, lambda text: text == "Lima", Counted(model))
    assert made == (INPUTS["question"], str(read_plan(CHAIN, PLAIN)))
    assert short in model.prompts[2] and "wrong answer" in model.prompts[2]
    shown = Says([CHAIN, "Henry", "Lima"])
    assert Pearl(actions=PLAIN, demonstrations=[made]).run(INPUTS, Counted(shown)).text == "Lima"
    assert made[1] in shown.prompts[0]
    never = Says(lambda prompt: CHAIN if "[Actions]" in prompt else "?")
    assert pearl.refine(INPUTS["question"], DOCUMENT, "Lima".__eq__, Counted(never), tries=2) is None
    assert pearl.refine(INPUTS["question"], DOCUMENT, "Lima".__eq__, Counted(never, Budget(calls=1))) is None


@pytest.mark.parametrize("wrong", [{"piece": 100}, {"tokens": 0}, {"tries": 0}, {"plan": "a = NO(CTX)"}])
def test_what_cannot_work_is_refused_when_it_is_made(wrong):
    with pytest.raises(PacelineError):
        Pearl(**wrong)


def test_the_example_can_be_executed():
    (fixed, inputs), (free, _) = example()
    assert fixed.given is not None and free.given is None
    assert fixed.run(inputs, Counted(Says(lambda prompt: "Henry"))).text == "Henry\nHenry"
