"""The one exception that users see."""

import difflib
from collections.abc import Iterable


class PacelineError(Exception):
    """Something the user can mend. The message is one sentence that names the thing and the mend."""


def suggest(name: str, known: Iterable[str]) -> str:
    """`" Did you mean 'x'?"` for the nearest known name, or an empty string where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""
