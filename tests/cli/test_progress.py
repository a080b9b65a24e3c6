"""Facts about what a race shows while it runs."""

from rich.console import Console

from paceline.cli.progress import Progress


def test_cells_of_races_one_after_the_other_add_up() -> None:
    """As `paceline claim NAME --reproduce` runs one race for each task."""
    progress = Progress(Console())
    progress.begin(5)
    progress.begin(3)
    assert progress.cells == 8
    assert [(task.description, task.total) for task in progress.bars.tasks] == [("race", 8)]
