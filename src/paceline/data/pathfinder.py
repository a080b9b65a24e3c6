"""Pathfinder: an image shows two dots and some dashed curves; does one curve join the dots?

The image is read row by row as side^2 tokens of five grey levels, and the answer (token 5: no, 6: yes) is asked at the
last pixel. A scene holds two long curves and short distractors. Dashes of 2 pixels follow each other at a distance of
1; different curves lie at least 2 blank pixels apart, so the answer always follows from the image.

Where the dots lie tells next to nothing of the answer. A scene's joined pair, both ends of one curve, is kept only if
some other scene has a lone pair, an end of each curve, that lies alike up to the symmetries of the square, within
side / 16 over all four coordinates; then a coin decides which of the two scenes is shown, and another turns it.

Sizes follow the Long Range Arena's 32 x 32 images: 14 dashes a curve, dots of radius 1.5, up to 5 distractors of a
third. Departures: curves are drawn by another rule (each dash turns by up to 1 radian), the dots are matched as said
above, and pixels have 5 levels, not 256. Scores do not compare with those on the Arena's files.
"""

import math

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from paceline.core.card import Source
from paceline.core.errors import PacelineError
from paceline.data._contract import IGNORE, Batch, Generated

PAPERS = (
    Source(
        title="Learning long-range spatial dependencies with horizontal gated-recurrent units",
        arxiv="1805.08477",
        year=2018,
    ),
    Source(title="Long Range Arena: A Benchmark for Efficient Transformers", arxiv="2011.04006", year=2020),
)

LEVELS = 5
"""0 is blank, 4 full: how many of a pixel's 2 x 2 parts are covered."""
DASH, STEP, TURN = 2.0, 3.0, 1.0
"""A dash and what it moves on by (pixels), and the most that a curve turns between dashes (radians)."""
LARGEST = 128
"""Most pixels of a side: larger images take seconds to draw."""
_PAIRS = 4096  # lone pairs, among which a match is sought
_PATIENCE = 50  # waves in a row that may bring nothing


class Pathfinder(Generated):
    """Say whether a dashed curve joins two dots.

    Args:
        side: pixels of a side; the sequence has side^2 tokens.
        dashes: of each long curve; when not given 14, or side / 2 - 3 on sides below 32. Distractors have a third.
        distractors: short curves, as many as find room; (side / 14)^2 when not given.

    Raises:
        PacelineError: the image is too small for the curves.
    """

    name = "pathfinder"
    one_answer = True
    title = "Pathfinder"
    vocab_size = LEVELS + 2

    def __init__(self, side: int = 32, dashes: int | None = None, distractors: int | None = None) -> None:
        dashes = (14 if side >= 32 else side // 2 - 3) if dashes is None else dashes
        distractors = side * side // 196 if distractors is None else distractors
        if side > LARGEST:
            raise PacelineError(f"pathfinder: side={side} would take minutes to draw: give at most {LARGEST}.")
        if dashes > 2 * side or distractors > side * side:
            raise PacelineError(
                f"pathfinder: dashes={dashes} and distractors={distractors} find no room in side={side}."
            )
        if side < 8 or dashes < 2 or distractors < 0:
            raise PacelineError(
                f"pathfinder: side={side}, dashes={dashes}, distractors={distractors} make no image: at least 8, 2 and "
                "0 are needed."
            )
        self.side, self.dashes, self.distractors, self.length = side, dashes, distractors, side * side
        self.radius = 1.5 if side >= 24 else 1.0  # of a dot, in pixels
        self.sample(1, torch.Generator().manual_seed(0))  # refuses curves that find no room

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """Scenes in waves until there are enough. A curve may come again in a batch, with another partner."""
        images, answers, found, idle = [], [], 0, 0
        while found < size:
            image, yes = self._scenes(min(512, 192 + 8 * size), generator)
            images.append(image)
            answers.append(yes)
            found, idle = found + len(image), 0 if len(image) else idle + 1
            if idle == _PATIENCE:
                raise PacelineError(
                    f"pathfinder: two curves of dashes={self.dashes} find no room in side={self.side}: give fewer "
                    "dashes or a larger side."
                )
        image, turn = torch.cat(images)[:size], torch.randint(2, (3, size, 1, 1), generator=generator).bool()
        for bit, other in zip(turn, (image.flip(1), image.flip(2), image.mT), strict=True):
            image = torch.where(bit, other, image)
        ids = image.flatten(1).long()
        targets = torch.full_like(ids, IGNORE)
        targets[:, -1] = LEVELS + torch.cat(answers)[:size]
        return Batch(ids, targets)

    def _scenes(self, tries: int, generator: torch.Generator) -> tuple[UInt8[Tensor, "n side side"], Int[Tensor, " n"]]:
        """Images from `tries` curves, and their answers: 1 for yes."""
        curves, tips = self._curves(tries, self.dashes, self.radius, generator)
        bodies = self._pixels(curves | self._drawn(_discs(tips, self.radius))).clamp(max=1)  # room for dots everywhere
        room = _around(bodies).flatten(1)
        fit = bodies.flatten(1).float() @ room.T == 0  # (n, n): two curves that go together
        first = fit.any(1).nonzero().squeeze(1)
        if not len(first):
            return bodies[:0], bodies.new_zeros(0).long()
        second = (torch.rand(fit.shape, generator=generator) * fit)[first].argmax(1)
        pairs = fit.nonzero()
        pairs = pairs[torch.randint(len(pairs), (_PAIRS,), generator=generator)]
        lone = tips[pairs, torch.randint(2, pairs.shape, generator=generator)]  # an end of each
        gap, which = torch.cdist(self._standard(tips[first]), self._standard(lone)).min(1)
        kept = gap <= self.side / 16
        yes = torch.randint(2, (len(first),), generator=generator)[kept]
        scene = torch.where(yes[:, None] == 1, torch.stack((first, second), 1)[kept], pairs[which][kept])
        dots = torch.where(yes[:, None, None] == 1, tips[first][kept], lone[which][kept])
        image, taken = curves[scene].any(1), room[scene].sum(1)
        for _ in range(self.distractors):
            extra, _ = self._curves(64, max(1, self.dashes // 3), 0.0, generator)
            body = self._pixels(extra).clamp(max=1)
            fit = taken @ body.flatten(1).float().T == 0
            chosen = (torch.rand(fit.shape, generator=generator) * fit).argmax(1)
            placed = fit.any(1)
            image[placed] |= extra[chosen[placed]]
            taken[placed] += _around(body).flatten(1)[chosen[placed]]
        return self._pixels(image | self._drawn(_discs(dots, self.radius))), yes

    def _standard(self, dots: Float[Tensor, "n 2 2"]) -> Float[Tensor, "n 4"]:
        """Two dots up to the symmetries of the square and their order."""
        dots = dots - self.side / 2
        total = dots.sum(1, keepdim=True)
        dots = torch.where(total < 0, -dots, dots)
        dots = torch.where(total[..., :1].abs() < total[..., 1:].abs(), dots.flip(2), dots)
        return torch.where(dots[:, :1, :1] < dots[:, 1:, :1], dots.flip(1), dots).flatten(1)

    def _curves(
        self, tries: int, dashes: int, margin: float, generator: torch.Generator
    ) -> tuple[Bool[Tensor, "n h w"], Float[Tensor, "n 2 2"]]:
        """Those of `tries` curves that fit in the image and keep away from themselves, and their ends in pixels."""
        turns = (2 * torch.rand(tries, dashes, generator=generator) - 1) * TURN
        turns[:, 0] *= math.pi / TURN
        angle = turns.cumsum(1)
        along = torch.stack((angle.cos(), angle.sin()), -1)
        knots = STEP * (along.cumsum(1) - along)  # where each dash begins
        points = (knots.unsqueeze(2) + torch.linspace(0, DASH, 9).unsqueeze(-1) * along.unsqueeze(2)).flatten(1, 2)
        least, most = points.amin(1, keepdim=True), points.amax(1, keepdim=True)
        spare = self.side - 2 * (0.5 + margin) - (most - least)  # the curve lies anywhere where it fits
        points += 0.5 + margin - least + spare * torch.rand(spare.shape, generator=generator)
        near = torch.cdist(knots, knots) < 1.2 * STEP
        points = points[(spare > 0).all(-1).squeeze(1) & ~near.triu(2).flatten(1).any(1)]
        return self._drawn(points), points[:, [0, -1]]

    def _drawn(self, points: Float[Tensor, "n p 2"]) -> Bool[Tensor, "n h w"]:
        """Images twice as fine, marked where points lie."""
        place = (2 * points).long()
        image = torch.zeros(len(points), 4 * self.side**2, dtype=torch.bool)
        image.scatter_(1, place[..., 0] * 2 * self.side + place[..., 1], True)
        return image.view(-1, 2 * self.side, 2 * self.side)

    def _pixels(self, image: Bool[Tensor, "n h w"]) -> UInt8[Tensor, "n side side"]:
        rows = image[:, 0::2].to(torch.uint8) + image[:, 1::2]
        return rows[..., 0::2] + rows[..., 1::2]

    def describe(self) -> str:
        """See `Task.describe`."""
        return (
            f"Say whether one dashed curve joins two dots, in an image of {self.side} x {self.side} pixels with two "
            f"curves of {self.dashes} dashes and up to {self.distractors} distractors, read row by row."
        )

    @property
    def floor(self) -> float:
        """Yes or no, evenly."""
        return 1 / 2

    def show(self, ids: Int[Tensor, " t"]) -> list[str]:
        """Shades, then the answers."""
        names = [*" ░▒▓█", "no ", "yes "]
        return [names[i] for i in ids.tolist()]


def _discs(centres: Float[Tensor, "n k 2"], radius: float) -> Float[Tensor, "n p 2"]:
    """Points that fill dots around the centres."""
    grid = torch.arange(-3, 4) / 2
    offsets = torch.cartesian_prod(grid, grid)
    offsets = offsets[offsets.norm(dim=1) <= radius]
    return (centres.unsqueeze(2) + offsets).flatten(1, 2)


def _around(bodies: UInt8[Tensor, "n side side"]) -> Float[Tensor, "n side side"]:
    """1 on all pixels less than 3 rows and 3 columns from a body."""
    rows = functional.max_pool2d(bodies.float().unsqueeze(1), (5, 1), 1, (2, 0))
    return functional.max_pool2d(rows, (1, 5), 1, (0, 2)).squeeze(1)


def example() -> Pathfinder:
    """The smallest instance for the contract tests."""
    return Pathfinder(side=10)
