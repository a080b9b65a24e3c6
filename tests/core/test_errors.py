"""Facts about `suggest`."""

from paceline.core.errors import PacelineError, suggest

KNOWN = ("attention", "lightning", "seqboat")


def test_the_nearest_name_is_suggested():
    assert suggest("seqbot", KNOWN) == " Did you mean 'seqboat'?"
    assert suggest("atention", iter(KNOWN)) == " Did you mean 'attention'?"


def test_nothing_near_suggests_nothing():
    assert suggest("xyzzy", KNOWN) == "" and suggest("seqboat", ()) == "" and suggest("", KNOWN) == ""


def test_the_message_is_what_was_said():
    assert str(PacelineError("Give more text.")) == "Give more text."
