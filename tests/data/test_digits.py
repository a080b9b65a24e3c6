"""What the digits promise beyond the contract of the tasks."""

import importlib.util
import sys

import numpy as np
import pytest
import torch

from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE
from paceline.data.digits import Digits, _images

needs_images = pytest.mark.skipif(importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed")


@needs_images
def test_train_and_evaluation_share_no_image_and_both_are_reached():
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    known = {tuple(image): digit for image, digit in zip(images.astype(int).tolist(), classes.tolist(), strict=True)}
    assert len(known) == 1797  # no two images are the same
    task = Digits()
    seen = []
    for batch in (task.batch(20_000, 0, 0), task.evaluation()):
        assert (batch.targets[:, :-1] == IGNORE).all()
        rows = [tuple(ids) for ids in batch.ids.tolist()]
        assert all(known[row] + 17 == answer for row, answer in zip(rows, batch.targets[:, -1].tolist(), strict=True))
        seen.append(set(rows))
    assert not seen[0] & seen[1] and len(seen[0] | seen[1]) == 1797 and len(seen[1]) == 360


@needs_images
def test_every_digit_comes_equally_often():
    task = Digits()
    assert torch.bincount(task.evaluation().targets[:, -1])[17:].tolist() == [36] * 10
    counts = torch.bincount(task.batch(4_000, 0, 0).targets[:, -1])[17:]
    assert (counts > 400 - 5 * 19).all() and (counts < 400 + 5 * 19).all()  # 5 sigma


@needs_images
def test_the_held_out_images_can_be_told_from_the_others():
    """The digit whose mean training image is nearest, a plain classifier, is right for most."""
    means = np.stack([images[:-36].mean(0) for images in _images()])
    data = Digits().evaluation()
    nearest = ((data.ids.numpy()[:, None] - means) ** 2).sum(2).argmin(1)
    assert 0.8 < (nearest + 17 == data.targets[:, -1].numpy()).mean() < 1


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    _images.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(PacelineError, match=r"needs scikit-learn: pip install 'paceline\[tasks\]'"):
        Digits()
