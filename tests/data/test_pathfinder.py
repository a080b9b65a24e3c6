"""What Pathfinder promises beyond the contract of the tasks."""

import numpy as np
import pytest
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE
from paceline.data.pathfinder import LEVELS, Pathfinder

AROUND = np.ones((3, 3))
SIZES = pytest.mark.parametrize("options", [{}, {"side": 16}, {"side": 32, "dashes": 9, "distractors": 8}])


def pictures(task, size, seed=0):
    batch = task.batch(size, seed, 0)
    return batch.ids.view(-1, task.side, task.side).numpy(), (batch.targets[:, -1] - LEVELS).numpy()


def dots(image):
    """The centres of the two dots, which alone hold full pixels."""
    blobs, count = ndimage.label(image == LEVELS - 1, AROUND)
    assert count == 2
    return np.array(ndimage.center_of_mass(blobs > 0, blobs, [1, 2]))


def components(image):
    """Number of the component of each pixel, where at most one blank pixel lies between neighbours."""
    places = np.argwhere(image > 0)
    near = np.abs(places[:, None] - places[None]).max(2) <= 2
    numbers = np.full(image.shape, -1)
    numbers[tuple(places.T)] = connected_components(near)[1]
    return numbers


@SIZES
def test_the_answer_follows_from_the_image(options):
    task = Pathfinder(**options)
    images, answers = pictures(task, 200)
    for image, answer in zip(images, answers, strict=True):
        numbers = components(image)
        ends = [numbers[tuple(dot)] for dot in dots(image).round().astype(int)]
        assert min(ends) >= 0 and (ends[0] == ends[1]) == answer
        assert 2 <= numbers.max() + 1 <= 2 + task.distractors


def test_it_is_asked_at_the_last_pixel_alone():
    batch = Pathfinder(side=16).batch(50, 0, 0)
    assert batch.ids.shape == (50, 256) and (batch.targets[:, :-1] == IGNORE).all()
    assert (batch.ids < LEVELS).all() and set(batch.targets[:, -1].tolist()) == {LEVELS, LEVELS + 1}
    assert Pathfinder().length == 1024


def fitted(features, answers):
    """Accuracy on one half of a linear rule that was fitted by least squares to the other."""
    features = np.column_stack(((features - features.mean(0)) / (features.std(0) + 1e-9), np.ones(len(features))))
    half = len(answers) // 2
    weights = np.linalg.lstsq(features[:half], 2.0 * answers[:half] - 1, rcond=None)[0]
    return ((features[half:] @ weights > 0) == answers[half:]).mean()


@pytest.mark.parametrize("side", [16, 32])
def test_trivial_statistics_tell_next_to_nothing(side):
    images, answers = pictures(Pathfinder(side=side), 2_000)
    assert answers.mean() == pytest.approx(0.5, abs=5 * 0.5 / np.sqrt(2_000))
    centres = np.stack([dots(image) for image in images]) - (side - 1) / 2
    apart = np.linalg.norm(centres[:, 0] - centres[:, 1], axis=1)
    off = np.sort(np.linalg.norm(centres, axis=2), axis=1)
    parts = [(images > 0).sum((1, 2)), images.sum((1, 2)), apart, off[:, 0], off[:, 1]]
    simple = np.column_stack(parts).astype(float)
    for features in (simple, np.column_stack((simple, simple**2, apart[:, None] * simple))):
        assert fitted(features, answers) < 0.5 + 0.07  # 1,000 images: one sigma is 0.016
    assert fitted(np.abs(centres).reshape(-1, 4), answers) < 0.57
    assert abs(np.median(apart[answers == 1]) - np.median(apart[answers == 0])) < 1


def test_more_distractors_draw_more():
    ink = [(pictures(Pathfinder(distractors=count), 50)[0] > 0).mean() for count in (0, 5)]
    assert ink[1] > 1.1 * ink[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"side": 7}, "side=7"),
        ({"dashes": 1}, "dashes=1"),
        ({"distractors": -1}, "distractors=-1"),
        ({"side": 16, "dashes": 20}, "find no room"),
    ],
)
def test_images_without_room_are_refused(options, says):
    with pytest.raises(PacelineError, match=says):
        Pathfinder(**options)
