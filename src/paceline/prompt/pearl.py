"""PEARL: questions on long documents by a plan of actions, which the model writes first and then executes.

    mine      training questions -> actions such as FIND(CTX, X) : Find all that CTX says about X.
    write     question -> plan   a = FIND(CTX, "the drum's owner"); ans = FIND_OF(CTX, a, "home")
    execute   each step in turn: its prompt holds the document, the action and what earlier steps gave

A plan is parsed (`_plan.py`), never evaluated. One that cannot be executed goes back to the model with the reason, at
most `tries` times. `refine` makes demonstrations for plans: one whose answer is wrong is written again, too. A step
that reads costs one call for each piece of the document and, where several pieces answer, one more for these answers.

Departures. The paper's documents fit its model's window, and its code cuts what does not; here they are read in pieces
of `piece` tokens, pieces without an answer say `none`, and the same action reads the answers of the others. Its tasks
have four options and a last prompt that chooses one; here the answer is the outputs that no step takes. A question that
has no plan after the last try is given up by its code; here it becomes the only step. Texts in quotes may hold commas,
each name is given once, and prompts are in words of our own. Plans and actions can be given, so that models may execute
that cannot plan; actions can have prompts of their own.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from paceline.core.card import Paper
from paceline.core.errors import PacelineError
from paceline.prompt._contract import Answer, Counted, Pipeline, Spent, given
from paceline.prompt._plan import (
    CONTEXT,
    FIELD,
    Action,
    Argument,
    Plan,
    Registry,
    Step,
    read_actions,
    read_new_actions,
    read_plan,
)  # fmt: skip
from paceline.prompt._reading import pieces

__all__ = ["ACTIONS", "Action", "Pearl", "Plan", "example", "mine", "quoted", "read_actions", "read_plan", "simplify"]

PAPERS = (
    Paper(
        title="PEARL: Prompting Large Language Models to Plan and Execute Actions Over Long Documents",
        arxiv="2305.14564",
        year=2023,
        says="plans of mined actions, executed over the document, beat zero-shot and chain-of-thought prompts",
    ),
)

ACTIONS: Registry = read_actions("""
    CONCAT(S1, S2, ...) : Put the texts S1, S2 and so on together.
    ANSWER(CTX, X) : Answer the question X from CTX.
    COMPARE(CTX, X, Y) : Say in what X and Y are alike and in what they differ, given CTX.
    EXTRACT(CTX, X) : Quote the exact words of CTX about X.
    FIND(CTX, X) : Find and list all that CTX says about X.
    FIND_OF(CTX, X, Y) : Find Y of X in CTX.
    FIND_REASON(CTX, X) : Find the cause or reason of X in CTX.
    SUMMARIZE(CTX, X) : Summarise what CTX says about X.
""")
"""What plans are made of where nothing was mined."""
CONCAT = "CONCAT"
"""The action that is done without the model."""
NOTHING = "none"
"""What a step says that finds no answer."""
END = ("\n\n\n",)
FORM = (
    "New actions:\n- NAME(CTX, X) : what it does, in a sentence; or None\n\n"
    '1. first = ACTION(CTX, "a text in quotes") : why\n2. ans = ACTION(CTX, first) : why\n'
)
RULES = (
    "You cannot see the document yet. Actions are functions: CTX is the document, texts stand in quotes, and the "
    "output of a step has a name of its own that later steps may take. Use as few steps as the question needs, cover "
    "all of its details, and prefer the actions above. A new action must be of use for other questions, too."
)
MINE = "[Actions]\n{actions}\n\n[Instructions]\nPlan how to answer a question about a document. {rules}\n\n"
MINE += "Answer in this form:\n{form}\n{shown}[Question]\n{question}\n\n[Answer]\n"
AGAIN = "{asked}\n{plan}\n\n[Mistake]\n{error}\n{earlier}\n[Instructions]\nWrite the plan again without the mistake, "
AGAIN += "in the same form.\n\n[Answer]\n"
MERGE = (
    "Shorten a list of functions: merge those that do the same or nearly so, and put general ones in place of special "
    "ones, until at most a third is left. Write each on a line, as NAME(CTX, X) : what it does.\n\n"
    "[Functions]\n{actions}\n\n[Shorter list]\n"
)
READ = "{document}\n---\n\nRead the text above, then do what follows.\n\n"
DO = "[Action]\n{action}\n\n[Arguments]\n{arguments}\n\n[Question that this helps with]\n{question}\n\n"
DO += "Say nothing but the result{unless}.\n\n[Result]\n({says})\n"


def mine(questions: Sequence[str], model: Counted, actions: Registry = ACTIONS) -> dict[str, Action]:
    """The actions given, and those that the model invents in planning these questions. One call each.

    Of actions of the same name the first is kept. What the paper does next is `simplify`.

    Raises:
        PacelineError: no question, or a blank one.
        Spent: the budget is too small: mine the questions in lots.
    """
    if not questions or not all(question.strip() for question in questions):
        raise PacelineError("Actions are mined from questions: give at least one, and none that is blank.")
    found = dict(actions)
    for question in questions:
        found = {**read_new_actions(model.complete(_asked(question, actions, ()), 512, END)), **found}
    return found


def simplify(actions: Registry, model: Counted, shard: int = 80) -> dict[str, Action]:
    """Fewer actions that do the same, as the model merges them, `shard` of them a call; `CONCAT` stays.

    Raises:
        PacelineError: no shard, or the model writes no list of actions.
        Spent: the budget is too small.
    """
    if shard < 1:
        raise PacelineError(f"A shard of {shard} actions has none: give at least 1.")
    kept = {name: action for name, action in actions.items() if action.many}
    others = [action for action in actions.values() if not action.many]
    for start in range(0, len(others), shard):
        listed = _listed(others[start : start + shard])
        merged = read_actions(model.complete(MERGE.format(actions=listed), 2048, END))
        if not merged:
            raise PacelineError("The model merged the actions into none: mine with a larger one, or keep them all.")
        kept |= {name: actions.get(name, action) for name, action in merged.items()}
    return kept


def quoted(values: Mapping[str, str], text: str) -> str:
    """For an action's `after`: what is not in `CTX` word for word counts as nothing."""
    return text if " ".join(text.split()) in " ".join(values[CONTEXT].split()) else NOTHING


class Pearl(Pipeline):
    """Plans and executes: `run({"question": ..., "document": ...}, model)`. A third input, `plan`, may hold a plan.

    Args:
        plan: executed for every question that comes without one. Default: the model writes one.
        actions: what plans are made of; see `mine`.
        demonstrations: questions with good plans, shown to the model that plans; see `refine`.
        piece: tokens of the document that are read at a time.
        tokens: the most that a step, or a plan, is written in.
        tries: how often a plan is written before the question becomes the only step.
        stop: texts before which the output of a step ends.

    Raises:
        PacelineError: a number below 1, a piece in which not two outputs have room, or a plan that cannot be executed.

    Attributes:
        plan: what the last run executed.
        values: of the last run, each step's output by name.
    """

    def __init__(
        self,
        plan: str = "",
        actions: Registry = ACTIONS,
        demonstrations: Sequence[tuple[str, str]] = (),
        piece: int = 2048,
        tokens: int = 512,
        tries: int = 8,
        stop: Sequence[str] = END,
    ) -> None:
        if min(tokens, tries) < 1 or piece < 2 * tokens:
            raise PacelineError(
                f"A plan needs at least one try, outputs a token, and pieces the room of two outputs: {tries} tries, "
                f"{tokens} tokens and pieces of {piece} are too few."
            )
        self.actions, self.demonstrations = dict(actions), tuple(demonstrations)
        self.piece, self.tokens, self.tries, self.stop = piece, tokens, tries, tuple(stop)
        self.given = read_plan(plan, self.actions) if plan.strip() else None
        self.plan = Plan(())
        self.values: dict[str, str] = {}
        self._meters: dict[str, float] = {}

    def run(self, inputs: Mapping[str, str], model: Counted) -> Answer:
        """See `Pipeline.run`.

        Raises:
            PacelineError: an input is missing, or the plan among them cannot be executed.
        """
        question, document = given(inputs, "question", "document")
        written = inputs.get("plan", "")
        plan = read_plan(written, self.actions) if written.strip() else self.given
        self.plan, self.values, self._meters = Plan(()), {}, {"corrections": 0.0}
        try:
            return self.execute(plan or self.write(question, model), question, document, model)
        except Spent:
            return Answer("", (), False)

    def write(self, question: str, model: Counted, earlier: Sequence[tuple[str, str]] = ()) -> Plan:
        """The model's plan for a question.

        Args:
            earlier: plans that were no good, each with the reason.

        Raises:
            Spent: the budget ended before there was one.
        """
        asked, wrong = _asked(question, self.actions, self.demonstrations), list(earlier)
        for _ in range(self.tries):
            prompt = _again(asked, wrong) if wrong else asked
            text = model.complete(prompt, self.tokens, END).strip()
            try:
                return read_plan(text, self.actions)
            except PacelineError as error:
                wrong.append((text, str(error)))
                self._meters["corrections"] = float(len(wrong) - len(earlier))
        return self._bare(question)

    def execute(self, plan: Plan, question: str, document: str, model: Counted) -> Answer:
        """What the steps of a plan give; where the budget ends first, what there is by then."""
        self.plan, self.values, complete, calls = plan, {}, True, model.calls
        for step in plan.steps:
            found: list[str] = []
            try:
                self._do(step, question, document, model, found)
            except Spent:
                complete = False
            if found:
                self.values[step.output] = "\n".join(found)
            if not complete:
                break
        self._meters |= {
            "steps_run": len(self.values) / max(1, len(plan.steps)),
            "step_calls": float(model.calls - calls),
        }
        wanted = [self.values[name] for name in plan.unused if name in self.values]
        return Answer("\n".join(wanted), (("plan", str(plan)), *self.values.items()), complete)

    def refine(
        self,
        question: str,
        document: str,
        right: Callable[[str], bool],
        model: Counted,
        tries: int = 4,
    ) -> tuple[str, str] | None:
        """A demonstration, the question with a plan whose answer is right; None where no plan's was, or not in time.

        Raises:
            PacelineError: fewer tries than 1.
        """
        if tries < 1:
            raise PacelineError(f"A plan cannot be refined in {tries} tries: give at least 1.")
        wrong: list[tuple[str, str]] = []
        for _ in range(tries):
            try:
                plan = self.write(question, model, wrong)
            except Spent:
                return None
            answer = self.execute(plan, question, document, model)
            if answer.complete and right(answer.text):
                return question, str(plan)
            wrong.append((str(plan), "The plan leads to a wrong answer: think of another way to find it."))
        return None

    def _do(self, step: Step, question: str, document: str, model: Counted, found: list[str]) -> None:
        """Leaves a step's output in `found`, or, where the budget ends, what there is of it."""
        known = {**self.values, CONTEXT: document}
        texts = [a.text if a.literal else known.get(a.text, "") for a in step.arguments]
        values = dict(zip(step.action.named(len(texts)), texts, strict=True))
        if step.action.name == CONCAT:
            found.append("\n".join(texts))
            return
        parts = pieces(values[CONTEXT].strip() or NOTHING, self.piece, model) if step.action.reads else []
        if len(parts) < 2:
            found.append(self._ask(step, values, question, model))
            return
        self._each(parts, step, values, question, model, found)
        while len(found) > 1 and not step.action.gathers:
            fewer, merged = pieces("\n".join(found), self.piece, model), list[str]()
            if len(fewer) < len(parts):
                self._each(fewer, step, values, question, model, merged)
            if not merged:  # answers that cannot be read together, or say nothing then, stay as they are
                return
            parts, found[:] = fewer, merged
        found[:] = found or [NOTHING]

    def _each(
        self,
        parts: Sequence[str],
        step: Step,
        values: Mapping[str, str],
        question: str,
        model: Counted,
        found: list[str],
    ) -> None:
        """Adds what each part answers, if anything, and if nothing like it was there."""
        for part in parts:
            text = self._ask(step, {**values, CONTEXT: part}, question, model, several=True)
            if not _nothing(text) and text not in found:
                found.append(text)

    def _ask(self, step: Step, values: Mapping[str, str], question: str, model: Counted, several: bool = False) -> str:
        if step.action.template:
            known = {**values, "question": question}
            prompt = FIELD.sub(lambda field: known[field[1]], step.action.template)
        else:
            document = READ.format(document=values[CONTEXT]) if step.action.reads else ""
            arguments = "\n".join(f"{name} = {text}" for name, text in values.items() if name != CONTEXT)
            unless = f", or {NOTHING} where the text does not hold it" if several else ""
            prompt = document + DO.format(
                action=step.action, arguments=arguments, question=question, unless=unless, says=step.says or step.call
            )
        text = model.complete(prompt, self.tokens, self.stop).strip()
        return text if step.action.after is None else step.action.after(values, text)

    def _bare(self, question: str) -> Plan:
        """The question itself as the only step."""
        usual = ACTIONS["ANSWER"]
        action = self.actions.get(usual.name, usual)
        action = action if action.arguments == usual.arguments else usual
        asked = " ".join(question.replace('"', "'").split())
        return Plan((Step("ans", action, (Argument(CONTEXT, False), Argument(asked, True))),))

    def meters(self) -> dict[str, float]:
        """The plans that were sent back, the share of the steps that gave something, and the calls of the steps."""
        return dict(self._meters)


def _asked(question: str, actions: Registry, demonstrations: Sequence[tuple[str, str]]) -> str:
    """The prompt for a plan."""
    shown = "".join(f"[Question]\n{asked}\n\n[Answer]\n{plan}\n\n---\n\n" for asked, plan in demonstrations)
    return MINE.format(actions=_listed(actions.values()), rules=RULES, form=FORM, shown=shown, question=question)


def _again(asked: str, wrong: Sequence[tuple[str, str]]) -> str:
    """The prompt for a plan in place of the last one; what was wrong with those before is told, too."""
    plan, error = wrong[-1]
    earlier = "".join(f"Before that: {reason}\n" for _, reason in wrong[:-1])
    return AGAIN.format(asked=asked, plan=plan, error=error, earlier=earlier)


def _listed(actions: Iterable[Action]) -> str:
    return "\n".join(map(str, actions))


def _nothing(text: str) -> bool:
    """Whether a piece of a document was said to hold no answer."""
    return text.strip(" .\"'()[]\n").lower() in ("", NOTHING)


def example() -> list[tuple[Pipeline, dict[str, str]]]:
    """A plan that is given, with steps that take others' outputs, and one that the model would have to write."""
    plan = 'owner = FIND_OF(CTX, "the drum", "owner")\nhome = FIND_OF(CTX, owner, "home")\nans = CONCAT(owner, home)'
    inputs = {
        "question": "Who owns the drum, and where does he live?",
        "document": "Martha owns a boat. Henry owns the drum. Henry lives in Lima. It rained all day.",
    }
    return [(Pearl(plan, piece=12, tokens=6), inputs), (Pearl(tries=2), inputs)]
