"""What the code of SpinQuant's authors gives for inputs without a generator, and whether ours gives the same.

Figures by facebookresearch/SpinQuant at commit 8f47aa3 under torch 2.13 on a processor: `train_utils/optimizer.py`
(SGDG, two steps at rate 0.1, no momentum), `utils/quant_utils.py` (ActQuantizer, 4 bits, asymmetric by token;
WeightQuantizer, 4 bits, symmetric by channel, scales clipped) and `eval_utils/gptq_utils.py` (GPTQ, no groups).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from paceline.compress._cayley import Cayley
from paceline.compress._columns import by_columns, hessian
from paceline.compress._grid import codes, parameters, weight_scale
from paceline.core.tolerances import close

ROTATED = [1.276612783802, -3.153408696791, -6.010240854717, -3.952111190127, 1.073371028295, 5.152484048939]
"""The rotation after two steps, times 1 to 6."""
TOKENS = [
    [6, 11, 15, 2, 6, 4, 13, 6, 0, 1], [10, 13, 0, 11, 1, 5, 13, 15, 12, 1],
    [3, 12, 4, 5, 12, 14, 15, 12, 0, 8], [7, 11, 5, 3, 2, 0, 5, 15, 2, 13],
]  # fmt: skip
STEPS = [0.1140174, 0.1277033, 0.1503657, 0.1635209]
CLIPPED = [0.1399566, 0.171103, 0.1720948, 0.1412736, 0.1389564]
COLUMNS = [
    [0, 4, 7, 0, 0, -2, 6, 0, -4, -4, 3, 6, -5, 4, -5, -1], [5, 6, 5, 0, -3, 4, -3, -1, 4, 6, 7, 4, -6, 1, -1, 3],
    [-3, -5, -5, 0, -2, 7, -5, 5, -2, -4, -3, -5, -7, 2, 4, -3], [-1, 4, 3, 0, 5, 6, -7, 4, -5, 4, 3, 1, 1, 6, 2, -7],
    [7, -3, -5, 0, 0, -2, -7, 5, -2, 4, -6, -2, 1, 0, -5, -4],
]  # fmt: skip


def waves(rows: int, columns: int) -> Float[Tensor, "r c"]:
    """Numbers that anyone's code can repeat, float64."""
    i = torch.arange(rows * columns, dtype=torch.float64)
    return ((i.square() * 0.37 + i * 0.11).sin() * (1 + 0.3 * (i * 0.7).cos())).view(rows, columns)


def same_as_authors() -> bool:
    """Whether steps, grids, clipped scales and GPTQ's codes are theirs."""
    rotation = torch.linalg.qr(waves(6, 6))[0].requires_grad_()
    optimiser = Cayley([rotation], 0.1)
    for size in (5.0, 0.2):
        rotation.grad = waves(6, 6) * size
        optimiser.step()
    stepped = rotation.detach() @ torch.arange(1.0, 7.0, dtype=torch.float64)
    x, w = waves(4, 10).float(), waves(5, 16).float()
    step, zero = parameters(x, 4)
    inputs = waves(40, 16).float()
    inputs[:, 3] = 0
    return (
        close(stepped, torch.tensor(ROTATED, dtype=torch.float64), torch.float32)
        and codes(x, step, zero, 4).tolist() == TOKENS
        and close(step[:, 0], torch.tensor(STEPS), torch.float32)
        and close(weight_scale(w, 4, clip=80)[:, 0], torch.tensor(CLIPPED), torch.float32)
        and by_columns(w, hessian(inputs), weight_scale(w, 4), 4).tolist() == COLUMNS
    )
