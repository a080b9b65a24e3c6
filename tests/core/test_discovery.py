"""Facts about discovery: a method exists because its file does."""

import pytest

from paceline.core import discovery
from paceline.core.discovery import FAMILIES, cards, find, load, methods, part
from paceline.core.errors import PacelineError


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A package of its own, with two families that share a name."""
    for family, method in (("mixers", "twice"), ("mixers", "first"), ("data", "twice"), ("mixers", "_hidden")):
        (tmp_path / family).mkdir(exist_ok=True)
        text = f'"""{family} {method}."""\nPAPERS = (Source(title="x", year=1),)\nraise SystemExit\n'
        (tmp_path / family / f"{method}.py").write_text(text)
    monkeypatch.setattr(discovery, "PACKAGE", tmp_path)
    methods.cache_clear()
    yield tmp_path
    methods.cache_clear()


def test_a_method_is_a_public_file(house):
    assert methods("mixers") == ("first", "twice") and methods("data") == ("twice",)
    assert methods("decode") == ()  # no folder yet


def test_a_new_file_is_a_new_method(house):
    text = '"""New."""\nPAPERS = (Source(title="x", year=1),)\n'
    (house / "mixers" / "added.py").write_text(text)
    methods.cache_clear()
    assert find("added") == ("mixers", "added") and "added" in [card.method for card in cards("mixers")]


def test_cards_come_in_the_order_of_the_house_and_run_nothing(house):
    found = [(card.family, card.method, card.summary) for card in cards()]
    assert found == [
        ("mixers", "first", "mixers first."),
        ("mixers", "twice", "mixers twice."),
        ("data", "twice", "data twice."),
    ]


def test_the_first_family_wins_unless_one_is_named(house):
    assert find("twice") == ("mixers", "twice") and find("twice", "data") == ("data", "twice")


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(PacelineError, match=r"no method 'seqbot' in any family\. Did you mean 'seqboat'\?"):
        find("seqbot")
    with pytest.raises(PacelineError, match="no method 'seqboat' in data"):
        find("seqboat", "data")
    with pytest.raises(PacelineError, match=r"no family 'mixer'.*Did you mean 'mixers'\?"):
        cards("mixer")


@pytest.mark.parametrize("name", ["_window", "_contract", "../core/files", "os", "", "__init__", "seqboat.SeqBoat"])
def test_only_methods_are_loaded(name):
    with pytest.raises(PacelineError):
        load("mixers", name)


def test_a_part_is_the_class_of_its_files_name(monkeypatch):
    from paceline.data.selective_copy import SelectiveCopy
    from paceline.mixers.ema import EMA

    assert part("mixers", "ema") is EMA  # not DampedEMA, nor the imported Mixer
    assert part("data", "selective_copy") is SelectiveCopy
    monkeypatch.setattr("paceline.mixers.ema.EMA", None)
    with pytest.raises(PacelineError, match=r"paceline.mixers.ema defines no class named 'ema'"):
        part("mixers", "ema")


def test_families_are_distinct():
    assert len(set(FAMILIES)) == len(FAMILIES) == 17
