"""Reading twice (JRT-Prompt): what is told, and what is asked of it, once more in front of itself.

On the second reading a model that reads from left to right knows what will be asked.
"""

import torch

from paceline.data._contract import IGNORE, Batch


def read_twice(batch: Batch, prompt: int) -> Batch:
    """Sequences (b, prompt + t) that begin with their first `prompt` tokens; these ask for nothing there.

    With `prompt` = t the questions are repeated as well, as the authors do. An answer that is shown in the sequence
    must lie behind `prompt`, or it would be given away.
    """
    first = batch.ids[:, :prompt]
    return Batch(torch.cat((first, batch.ids), 1), torch.cat((torch.full_like(first, IGNORE), batch.targets), 1))
