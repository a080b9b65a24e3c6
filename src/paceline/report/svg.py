"""matplotlib figures -> SVG that is deterministic, free of metadata, themeable, and safe to put inline."""

import hashlib
import io
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from paceline.report import palette
from paceline.report.layout import SIZE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FONT = "system-ui,-apple-system,'Segoe UI',Roboto,Helvetica,Arial,sans-serif"
_COLOUR = re.compile(r"#0102[0-9a-f]{2}")
_FAMILY = re.compile(r"(; )?font-family: [^;]*")
_REFERENCE = re.compile(r"(?:url\(|^)#([^)]+)")
_LONG = re.compile(r"(\d\.\d\d)\d+")


def draw(width: float, height: float, name: str, paint: Callable[["Figure"], Any]) -> ET.Element:
    """The SVG element of a figure of `width` x `height` px that `paint` filled; `name` keeps its ids its own.

    User text must come cleaned by `words.visible`: XML cannot hold control characters.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    ours: dict[str, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "font.family": "DejaVu Sans",  # comes with matplotlib, so that layout is the same everywhere
        "font.size": SIZE,
        "text.parse_math": False,  # a $ in a contestant's name is a dollar sign
        "axes.unicode_minus": True,
        "path.simplify_threshold": 0.2,
    }
    buffer = io.StringIO()
    with matplotlib.style.context(["default", ours], after_reset=True), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the reader's browser has the font that we may lack
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        paint(figure)
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())
    _strip(root)
    _own_ids(root, hashlib.sha256(name.encode()).hexdigest()[:8])
    root.set("viewBox", f"0 0 {width:g} {height:g}")
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    return root


def inline(root: ET.Element, label: str) -> str:
    """SVG for the page: its colours are the page's variables, `label` is read to those who cannot see it."""
    _recolour(root, palette.variables(), "inherit")
    root.attrib |= {"class": "chart", "role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode")


def standalone(root: ET.Element, label: str) -> str:
    """An SVG file with transparent ground whose colours read on white and on black."""
    _recolour(root, palette.fixed(), FONT)
    _, _, width, height = root.attrib["viewBox"].split()
    root.attrib |= {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height}
    root.attrib |= {"role": "img", "aria-label": label}
    return ET.tostring(root, encoding="unicode") + "\n"


def _strip(root: ET.Element) -> None:
    """Drop metadata, blanks, namespaces (HTML knows SVG by its tag) and digits beyond a hundredth of a pixel."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.tail = None
        if element.tag != "text":
            element.text = None
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            value = _LONG.sub(r"\1", value) if key in ("d", "x", "y", "transform") else value
            element.set(key.rpartition("}")[2], value)
        for child in list(element):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):  # a style here would hold for the whole page
                element.remove(child)


def _own_ids(root: ET.Element, prefix: str) -> None:
    """Keep only the ids that something refers to, under the figure's prefix."""
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {found[1] for value in values if (found := _REFERENCE.search(value))}
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id":
                if value in used:
                    element.set("id", f"{prefix}-{value}")
                else:
                    del element.attrib["id"]
            elif key == "href":
                element.set(key, f"#{prefix}-{value[1:]}")
            else:
                element.set(key, value.replace("url(#", f"url(#{prefix}-"))


def _recolour(root: ET.Element, colours: dict[str, str], font: str) -> None:
    """Replace sentinels and fonts in styles only: a user's text may well say `#010203`."""
    for element in root.iter():
        style = element.get("style")
        if style is not None:
            style = _COLOUR.sub(lambda match: colours.get(match[0], match[0]), style)
            element.set("style", _FAMILY.sub("", style))
    root.set("style", f"font-family: {font}; stroke-linejoin: round")
