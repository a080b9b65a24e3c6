"""Results of a race -> one offline HTML page, a terminal table, a picture for a README. Imports no torch.

`render` and `write` make the page, `table` the standings for a terminal, `picture` one SVG. All take the content
of a race's `result.json`; matplotlib, jinja2 and rich are imported only when they are used.
"""

from paceline.report.page import render, write
from paceline.report.picture import picture
from paceline.report.terminal import table

__all__ = ["picture", "render", "table", "write"]
