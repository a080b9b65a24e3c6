"""Facts about staleness: a verdict speaks of the code that it ran, and of nothing else."""

import pytest

from paceline.claims import _sources
from paceline.claims._sources import digests, stale, versions

CLAIM = "paceline.claims.mixers.seqboat"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules, of which a imports b."""
    root = tmp_path / "paceline"
    root.mkdir()
    (root / "a.py").write_text('"""Doc."""\nfrom paceline.b import f\nimport torch\n\n\ndef g():\n    """Doc."""\n')
    (root / "b.py").write_text("def f():\n    return 1\n")
    (root / "c.py").write_text("x = 1\n")
    monkeypatch.setattr(_sources, "PACKAGE", root)
    _sources._read.cache_clear()
    yield root
    _sources._read.cache_clear()


def verdict():
    return {"sources": digests(["paceline.a"]), "versions": versions()}


def edit(package, name, old, new):
    path = package / name
    path.write_text(path.read_text().replace(old, new))
    _sources._read.cache_clear()


def test_everything_imported_counts_and_nothing_else(package):
    assert list(digests(["paceline.a"])) == ["paceline.a", "paceline.b"]
    stored = verdict()
    assert stale(stored) is None
    edit(package, "c.py", "1", "2")
    assert stale(stored) is None
    edit(package, "b.py", "1", "2")
    assert stale(stored) == "changed: b"


def test_docstrings_and_comments_do_not_count(package):
    stored = verdict()
    edit(package, "a.py", "Doc.", "Another doc.")
    edit(package, "b.py", "return 1", "return 1  # one")
    assert stale(stored) is None


def test_a_module_that_is_gone_or_newly_imported_counts(package):
    stored = verdict()
    edit(package, "a.py", "import torch", "import paceline.c")
    assert stale(stored) == "changed: a"
    (package / "b.py").unlink()
    assert stale(stored) == "changed: a, b"


@pytest.mark.parametrize("named", ['"paceline.c"', '"paceline." "c"'])
def test_a_module_that_is_opened_by_name_counts(package, named):
    edit(package, "a.py", "import torch", f"import_module({named})")
    stored = verdict()
    assert list(stored["sources"]) == ["paceline.a", "paceline.b", "paceline.c"]
    edit(package, "c.py", "1", "2")
    assert stale(stored) == "changed: c"


def test_other_versions_are_stale(package):
    stored = verdict()
    stored["versions"] = {**stored["versions"], "torch": "1.0"}
    assert stale(stored).startswith("other versions: torch ")
    assert stale({"sources": {}}) == "unknown"


@pytest.mark.parametrize(
    ("claim", "part"),
    [
        ("data.color_filter", "mixers.attention"),
        ("data.color_filter", "optim.adamw"),
        ("flows.ot_cfm", "mixers.attention"),
        ("parallel.lasp2", "optim.adamw"),
        ("prompt.studio", "retrieve.bm25"),
        ("prompt.studio", "core.step_numba"),
        ("prompt.ced", "context._steps_numba"),
    ],
)
def test_a_claim_rests_on_parts_that_are_opened_by_name(claim, part):
    assert f"paceline.{part}" in digests([f"paceline.claims.{claim}"])


def test_a_real_claim_rests_on_its_parts_and_on_the_race():
    found = digests([CLAIM, "paceline.race.run"])
    assert {"paceline.blocks.sma", "paceline.mixers.ema", "paceline.race.statistics", "paceline.lm.train"} <= set(found)
    assert not any(name.startswith(("paceline.cli", "paceline.report")) for name in found)
