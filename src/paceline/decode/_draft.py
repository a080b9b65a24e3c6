"""What strategies with a draft model share: the model that reads along, and the loop that asks it for guesses."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.growing import Growing
from paceline.core.layered import Memories
from paceline.core.state import LM, State
from paceline.decode._choice import Choice
from paceline.decode._contract import PIECE, Run, compatible
from paceline.decode._speculate import Draft, Speculation, at_least_one, drafted, guess


class Follower:
    """A second model that reads what a run reads and is taken back with it; across runs too, where a text goes on.

    Args:
        lm: the model.
        keep: tokens that it may have to take back.
    """

    def __init__(self, lm: LM, keep: int) -> None:
        self.lm, self.keep = lm, keep
        self._ids: list[int] = []
        self._state: State | None = None
        self._agreed = 0

    def begin(self) -> None:
        """Another text may follow."""
        self._agreed = 0

    def room(self, run: Run) -> int:
        """Guesses that it can make before its own context is full."""
        longest: int | None = getattr(self.lm, "longest", None)
        return run.limit if longest is None else max(longest - len(run.ids) + 1, 0)

    def follow(self, run: Run) -> Float[Tensor, " v"]:
        """Its logits after the run's last token: what it has read wrongly is taken back, what it lacks is read."""
        same = self._agreed
        for mine, theirs in zip(self._ids[same:], run.ids[same:-1], strict=False):
            if mine != theirs:
                break
            same += 1
        back = len(self._ids) - same
        if self._state is None or back > self._state.kept or same == 0:
            self._state, same = self.lm.initial_state(1), 0
        elif back:
            self._state = self._state.rewind(back)
        self._ids = run.ids[:same]
        logits = self.read(run, run.ids[same:])
        self._agreed = len(run.ids)
        return logits

    def read(self, run: Run, tokens: list[int]) -> Float[Tensor, " v"]:
        """Its logits after these tokens, which follow what it has read."""
        pieces = torch.tensor([tokens]).split(PIECE, dim=1)
        assert self._state is not None  # `follow` comes first
        for index, piece in enumerate(pieces, 1):
            state = self._state.keeping(self.keep) if index == len(pieces) else self._state
            logits, self._state = self.call(piece, state)
            run.counts.helper_calls += 1 + getattr(self.lm, "helper_calls", 0)
        self._ids = self._ids + tokens
        return logits[0, -1]

    @torch.no_grad()
    def call(self, ids: Int[Tensor, "1 t"], state: State) -> tuple[Float[Tensor, "1 t v"], State]:
        """The model."""
        return self.lm(ids, state)


class Drafting(Speculation):
    """Speculation by a draft model, which draws guess after guess by the same choice.

    Args:
        follower: the draft model.
        guesses: tokens of a draft, at most.
        choice: what each token is drawn by.
        patience: refused drafts in a row before a pause.
    """

    helpers: tuple[str, ...] = ("draft",)

    def __init__(self, follower: Follower, guesses: int, choice: Choice, patience: int) -> None:
        super().__init__(choice, patience)
        at_least_one(guesses=guesses)
        self.follower, self.guesses = follower, guesses
        self.keep = guesses + 1

    def prepare(self, lm: LM) -> LM:
        """See `Strategy.prepare`."""
        compatible(lm, self.follower.lm, "draft")
        return lm

    def begin(self, run: Run) -> None:
        """See `Speculation.begin`."""
        self.follower.begin()

    def draft(self, run: Run, room: int) -> Draft:
        """See `Speculation.draft`."""
        count = min(self.guesses, room, self.follower.room(run))
        if count < 1:
            return Draft([])
        made = [guess(self.follower.follow(run), self.choice, run.draws)]
        while len(made) < count and not self.enough(len(made)):
            made.append(guess(self.follower.read(run, [made[-1][0]]), self.choice, run.draws))
        return drafted(made)

    def enough(self, drafted: int) -> bool:
        """Whether to stop after so many guesses; the draft model has read all but the last."""
        return False


class Bigram:
    """A draft for examples, often refused: random logits that depend on the last token alone. It has no layers.

    Args:
        vocab_size: tokens v.
        width: numbers that stand for a token.
    """

    depth = 0

    def __init__(self, vocab_size: int, width: int = 4) -> None:
        self.vocab_size, self.width = vocab_size, width
        self.table = torch.randn(vocab_size, width, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def initial_state(self, batch: int) -> State:
        """Nothing is remembered but how many tokens there were."""
        return Growing((), 0, of="bigram")

    def __call__(self, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Float[Tensor, "b t v"], State]:
        """Logits of each next token."""
        state = self.initial_state(len(ids)) if state is None else state
        return self.head(self.embed(ids)), Growing((), state.length + ids.shape[1], of="bigram")

    def embed(self, ids: Int[Tensor, "b t"]) -> Float[Tensor, "b t d"]:
        """See `Layered.embed`; so are the others."""
        return self.table[ids]

    def through(self, x: Tensor, past: Memories, start: int, *, first: int = 0) -> tuple[Tensor, Memories]:
        """No layers."""
        return x, ()

    def final(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t d"]:
        """No norm."""
        return x

    def head(self, x: Float[Tensor, "b t d"]) -> Float[Tensor, "b t v"]:
        """The same table."""
        return x.flip(-1) @ self.table.T
