"""How autoregressive reward models are trained (GenARM): the reward of a text is the sum of its tokens' log pi_r.

    loss = - log sigmoid(beta_r (log pi_r(y_w | x) - log pi_r(y_l | x)))

the Bradley-Terry likelihood that y_w is preferred to y_l. DPO without its reference model, so pi_r is a reward and
need not stay near a policy.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional


def text_reward(
    logits: Float[Tensor, "b t v"], ids: Int[Tensor, "b t"], of: Bool[Tensor, "b t"] | None = None
) -> Float[Tensor, " b"]:
    """log pi_r(y | x), summed over the text's tokens.

    Args:
        logits: for each of `ids`, those that it is drawn from: of the token before it.
        ids: tokens.
        of: which of them are y's; the others are the prompt's, or padding. Default: all.
    """
    said = logits.log_softmax(-1).gather(-1, ids.unsqueeze(-1)).squeeze(-1)
    return (said if of is None else torch.where(of, said, 0.0)).sum(1)


def preference_loss(preferred: Float[Tensor, " b"], other: Float[Tensor, " b"], beta: float = 0.1) -> Float[Tensor, ""]:
    """The mean loss over pairs of one prompt's answers, given the `text_reward` of each.

    Args:
        preferred: of the answers y_w that were preferred.
        other: of the answers y_l that were not.
        beta: beta_r, how sure a preference is for a difference of rewards. The authors' default.
    """
    return -functional.logsigmoid(beta * (preferred - other)).mean()
