"""The swatch that ties a contestant's name to its marks in the charts."""

from paceline.report import palette

_SHAPES = {
    "o": '<circle cx="11" cy="5" r="3.6" />',
    "s": '<path d="M7.8 1.8h6.4v6.4H7.8z" />',
    "^": '<path d="M11 1l4.2 7.4H6.8z" />',
    "D": '<path d="M11 .6L15.4 5 11 9.4 6.6 5z" />',
    "v": '<path d="M11 9l4.2-7.4H6.8z" />',
    "P": '<path d="M9.7 1h2.6v2.7H15v2.6h-2.7V9H9.7V6.3H7V3.7h2.7z" />',
    "X": '<path d="M8.6.8L11 3.2 13.4.8 15.2 2.6 12.8 5l2.4 2.4-1.8 1.8L11 6.8 8.6 9.2 6.8 7.4 9.2 5 6.8 2.6z" />',
    "p": '<path d="M11 .8l4.2 3-1.6 4.9H8.4L6.8 3.8z" />',
    "<": '<path d="M7 5l7.4-4.2v8.4z" />',
    ">": '<path d="M15 5L7.6.8v8.4z" />',
}


def swatch(index: int) -> str:
    """A small SVG of contestant `index`: its line with its marker, in its colour."""
    dash = palette.dash(index)
    dashes = "" if isinstance(dash, str) else f' stroke-dasharray="{" ".join(f"{1.4 * d:g}" for d in dash[1])}"'
    tone = f"var(--s{index % len(palette.HUES)})"
    line = f'<path d="M0 5H22" style="stroke:{tone};stroke-width:1.6"{dashes} />'
    return (
        f'<svg class="swatch" viewBox="0 0 22 10" aria-hidden="true">{line}'
        f'<g style="fill:{tone}">{_SHAPES[palette.marker(index)]}</g></svg>'
    )
