"""The command line: race | list | show | train | generate. Each command imports what it needs when it runs."""

import io
import os
import sys


def main() -> None:
    """Run `paceline`. What the user can mend ends in one sentence on standard error and a non-zero exit."""
    from paceline.cli.app import app
    from paceline.core.errors import PacelineError

    # Threads that wait for each other sleep soon: by default they spin, and where other programs compute too, one that
    # spins takes the time of the one it waits for. Decoding was then 5 to 10 times slower.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a prompt may hold what the terminal cannot show
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name="paceline")
    except PacelineError as error:
        _fail(str(error))
    except BrokenPipeError:  # `paceline list | head`
        sys.stderr.close()
        sys.exit(0)
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        _fail(f"The system refused: {error.strerror or error}{place}. What was finished is kept.")


def _fail(sentence: str) -> None:
    """A name in the sentence, such as a file's, must not break its line, command the terminal or fill the screen."""
    from paceline.report.words import shorten, visible

    print(f"paceline: {shorten(visible(sentence, newline=' '), 1000)}", file=sys.stderr)
    sys.exit(1)
