"""Facts about cards: read without importing, and refused with a sentence where they are bad."""

import pytest

from paceline.core.card import Card, Paper, Source, read_card
from paceline.core.errors import PacelineError

IMPORT = "from paceline.core.card import Paper, Source\n"


def card(tmp_path, text):
    path = tmp_path / "mixers" / "mine.py"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
    return read_card(path)


def test_a_good_card(tmp_path):
    text = (
        f'"""What it computes.\n\nMore.\n"""\n{IMPORT}'
        'PAPERS = (Paper(title="A" " B", arxiv="1", year=2023, says="x"), Source(title="C", year=1951))\n'
        "raise SystemExit('a card is read, not run')\n"
    )
    papers = (Paper(title="A B", arxiv="1", year=2023, says="x"), Source(title="C", year=1951))
    assert card(tmp_path, text) == Card("mixers", "mine", "What it computes.", "What it computes.\n\nMore.", papers)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no module docstring"),
        ("PAPERS = ()", "no module docstring"),
        ('"""Doc."""', "has no PAPERS"),
        ('"""Doc."""\npapers = ()', "has no PAPERS"),
        ('"""Doc."""\ndef f():\n    PAPERS = (Source(title="x", year=1),)', "has no PAPERS"),
        ('"""Doc."""\nPAPERS = ()', "non-empty tuple"),
        ('"""Doc."""\nPAPERS = [Source(title="x", year=1)]', "non-empty tuple"),
        ('"""Doc."""\nPAPERS = Source(title="x", year=1)', "non-empty tuple"),
        ('"""Doc."""\nPAPERS = tuple(stock)', "non-empty tuple"),
        ('"""Doc."""\nPAPERS = ("x",)', "only Paper(...) and Source(...)"),
        ('"""Doc."""\nPAPERS = (Book(title="x"),)', "only Paper(...) and Source(...)"),
        ('"""Doc."""\nPAPERS = (card.Source(title="x", year=1),)', "only Paper(...) and Source(...)"),
        ('"""Doc."""\nPAPERS = (Source(title="x"),)', "Source takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Paper(title="x", year=1),)', "Paper takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Source(title="x", year=1, isbn="1"),)', "Source takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Source(title=TITLE, year=1),)', "Source takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Source(title=f"{x}", year=1),)', "Source takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Source(title=open("x").read(), year=1),)', "Source takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Source("x", title="x", year=1),)', "Source takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Source(**{"title": "x", "year": 1}),)', "Source takes literal keywords only"),
        ('"""Doc."""\nPAPERS = (Source(title="x"', "is not valid Python: '(' was never closed in line 2"),
        (b'"""\xff."""', "is not a Python file"),
        (b'"""Doc."""\x00', "is not"),
    ],
)
def test_a_bad_card_is_refused_with_a_sentence(tmp_path, text, says):
    with pytest.raises(PacelineError) as caught:
        card(tmp_path, text)
    message = str(caught.value)
    assert says in message and "mine.py" in message and message.endswith(".") and "\n" not in message


def test_papers_and_sources_take_keywords_only():
    with pytest.raises(TypeError):
        Paper("title", "arxiv", 2023, "says")
    with pytest.raises(TypeError):
        Source("title", 1951)
