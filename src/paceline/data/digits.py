"""Sequential digits: a handwritten digit of 8 x 8 pixels, read row by row; which is it?

64 tokens of 17 grey levels, and the class (tokens 17 to 26) is asked at the last pixel. The images are the 1,797 that
scikit-learn brings, from 13 writers; of each digit the last 36, mostly by other writers than the rest, are held out.
"""

from functools import cache

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Task

PAPERS = (
    Source(title="Optical Recognition of Handwritten Digits", year=1998, says="8 x 8 digits of the UCI repository"),
    Source(
        title="A Simple Way to Initialize Recurrent Networks of Rectified Linear Units", arxiv="1504.00941", year=2015
    ),
)

LEVELS = 17
HELD_OUT = 36
"""Images of each digit to measure on; 1,437 remain to train on."""


class Digits(Task):
    """Classify an image of 64 pixels, read one by one.

    Raises:
        PacelineError: scikit-learn, which brings the images, is not installed.
    """

    name = "digits"
    one_answer = True
    title = "Sequential digits"
    metric = "accuracy"
    better = "higher"
    items = 10 * HELD_OUT
    vocab_size = LEVELS + 10
    length = 64
    floor = 1 / 10  # every digit comes equally often
    ceiling = 1.0

    def __init__(self) -> None:
        _images()

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """A digit is drawn first, then one of its training images."""
        digit = torch.randint(10, (size,), generator=generator)
        part = torch.rand(size, generator=generator, dtype=torch.float64)
        rows = [int(p * (len(_images()[d]) - HELD_OUT)) for d, p in zip(digit.tolist(), part.tolist(), strict=True)]
        return _batch(digit, rows)

    def evaluation(self) -> Batch:
        """All held-out images, digit by digit."""
        return _batch(
            torch.arange(10).repeat_interleave(HELD_OUT), [-i for _ in range(10) for i in range(HELD_OUT, 0, -1)]
        )

    def describe(self) -> str:
        """See `Task.describe`."""
        return f"Name a handwritten digit from its 64 pixels, read row by row; {self.items} images are held out."

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Grey levels 0 to 16, then the classes."""
        names = [f"{i} " for i in range(LEVELS)] + [f"={i} " for i in range(10)]
        return [names[i] for i in ids.tolist()]


def _batch(digits: Tensor, rows: list[int]) -> Batch:
    images = _images()
    ids = torch.from_numpy(np.stack([images[d][row] for d, row in zip(digits.tolist(), rows, strict=True)]))
    targets = torch.full_like(ids, IGNORE)
    targets[:, -1] = digits + LEVELS
    return Batch(ids, targets)


@cache
def _images() -> list[np.ndarray]:
    """The images of each digit in scikit-learn's order, each of shape (n, 64), values 0 to 16."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise PacelineError("digits: the task needs scikit-learn: pip install 'paceline[tasks]'.") from error
    images, classes = load_digits(return_X_y=True)
    return [images[classes == digit].astype(np.int64) for digit in range(10)]


def example() -> Digits:
    """The only instance there is."""
    return Digits()
