"""Refusing numbers that no command can use."""

from paceline.core.errors import PacelineError

MOST_SEEDS = 10_000
"""Each is a cell of every contestant, and all are listed before the first runs."""


def check_numbers(**given: int | None) -> None:
    """Refuse options that must be at least 1, and more seeds than anyone waits for.

    Raises:
        PacelineError: naming the option.
    """
    for name, value in given.items():
        if value is not None and value < 1:
            raise PacelineError(f"--{name} must be at least 1, not {value}.")
    if (seeds := given.get("seeds")) is not None and seeds > MOST_SEEDS:
        raise PacelineError(f"--seeds must be at most {MOST_SEEDS:,}, not {seeds:,}.")
