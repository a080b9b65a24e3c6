"""Reading for the sake of what comes next: with a large vocabulary logits of all tokens are a fifth of reading them."""

from jaxtyping import Float, Int
from torch import Tensor

from paceline.core.state import LM, State


def read_end(lm: LM, ids: Int[Tensor, "b t"], state: State | None) -> tuple[Float[Tensor, "b 1 v"], State]:
    """Logits of the token after the last of `ids` alone, and the state after them.

    A model whose class has a method `read_end` makes no others. A view that hands on what it has not itself is asked as
    any other model, for its logits may be its own.
    """
    own = getattr(type(lm), "read_end", None)
    if own is not None:
        logits, after = own(lm, ids, state)
        return logits, after
    logits, after = lm(ids, state)
    return logits[:, -1:], after
