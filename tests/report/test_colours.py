"""The page's colours: readable in both themes, and apart for readers who see fewer hues.

Contrast is WCAG 2.2's: 4.5:1 for text (1.4.3), 3:1 for marks (1.4.11). Colour-blind vision is simulated by Machado,
Oliveira and Fernandes (2009) at severity 1.0. Two hues are apart from dE*ab = 10 on (CIE 1976), which is the default of
R's `countryatlas::check_palette`: below about 10 small areas on a map are hard to tell apart.
"""

import itertools
import re

import numpy as np
import pytest

from paceline.report import palette
from paceline.report.style import css

APART, TEXT, MARK = 10.0, 4.5, 3.0
FIRST = 4
"""Hues that must be apart by colour alone: those of the default race."""
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}
XYZ = np.array(
    [[0.4123908, 0.3575843, 0.1804808], [0.2126390, 0.7151687, 0.0721923], [0.0193308, 0.1191948, 0.9505322]]
)


def theme(dark: bool) -> dict[str, str]:
    """The page's variables as a browser resolves them on a light or dark screen."""
    light, night = css().split("@media screen and (prefers-color-scheme:dark)", 1)
    found = dict(re.findall(r"(--[\w]+):(#[0-9a-f]{6})\b", light))
    if dark:
        found |= dict(re.findall(r"(--[\w]+):(#[0-9a-f]{6})\b", night.split("*{box-sizing", 1)[0]))
    return found


def srgb(colour: str) -> np.ndarray:
    """`#rrggbb` -> three numbers from 0 to 1."""
    return np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def linear(rgb: np.ndarray) -> np.ndarray:
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def contrast(a: np.ndarray, b: np.ndarray) -> float:
    """WCAG's ratio of two sRGB colours, from 1 to 21."""
    low, high = sorted(float(XYZ[1] @ linear(colour)) for colour in (a, b))
    return (high + 0.05) / (low + 0.05)


def lab(colour: str, vision: str) -> np.ndarray:
    """CIELAB (D65) of a colour as seen."""
    seen = np.clip(VISIONS[vision] @ linear(srgb(colour)), 0, 1)
    share = XYZ @ seen / XYZ.sum(1)
    x, y, z = np.where(share > (6 / 29) ** 3, np.cbrt(share), share * (29 / 6) ** 2 / 3 + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(a: str, b: str, vision: str) -> float:
    return float(np.linalg.norm(lab(a, vision) - lab(b, vision)))


def hues(dark: bool) -> list[str]:
    return [theme(dark)[f"--s{i}"] for i in range(len(palette.HUES))]


def test_the_measures_agree_with_known_values() -> None:
    assert contrast(srgb("#000000"), srgb("#ffffff")) == pytest.approx(21)
    assert contrast(srgb("#777777"), srgb("#ffffff")) == pytest.approx(4.48, abs=0.005)
    assert lab("#ff0000", "normal") == pytest.approx([53.24, 80.09, 67.20], abs=0.05)
    assert all(m.sum(1) == pytest.approx(1, abs=1e-5) for m in VISIONS.values()), "grey stays grey"
    assert distance("#a00000", "#605000", "protanopia") < distance("#a00000", "#605000", "normal") / 3


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_and_marks_stand_out(dark: bool) -> None:
    tones = theme(dark)
    for ground in ("--paper", "--wash"):
        for text in ("--ink", "--muted", "--accent"):
            assert contrast(srgb(tones[text]), srgb(tones[ground])) >= TEXT, (text, ground)
    for colour in hues(dark):
        assert contrast(srgb(colour), srgb(tones["--paper"])) >= MARK, colour


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_on_lit_tokens_stands_out(dark: bool) -> None:
    sheets = re.findall(r"\.l\d\{background:rgb\(([\d ]+)/([\d.]+)\)\}", css())
    assert len(sheets) == 10
    tones = theme(dark)
    for light, alpha in sheets[5:] if dark else sheets[:5]:
        colour = np.array([int(part) for part in light.split()]) / 255
        ground = float(alpha) * colour + (1 - float(alpha)) * srgb(tones["--paper"])
        assert contrast(srgb(tones["--ink"]), ground) >= TEXT, alpha


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_first_hues_are_apart_for_everyone(dark: bool, vision: str) -> None:
    for a, b in itertools.combinations(hues(dark)[:FIRST], 2):
        assert distance(a, b, vision) >= APART, (a, b)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_hues_that_come_close_differ_in_marker_and_dash(dark: bool) -> None:
    """Whoever cannot tell two hues apart has the marker on points and the dash on lines."""
    colours = hues(dark)
    for i, j in itertools.combinations(range(len(colours)), 2):
        if min(distance(colours[i], colours[j], vision) for vision in VISIONS) < APART:
            assert palette.marker(i) != palette.marker(j), (i, j)
            assert palette.dash(i) != palette.dash(j), (i, j)


def test_hue_and_marker_name_one_contestant() -> None:
    assert len({(palette.hue(i), palette.marker(i)) for i in range(70)}) == 70
