"""CoLoR-Filter: what tells of the target is kept, not what is easy; and `paceline select`."""

import json

import pytest
import torch

from paceline.claims.data.color_filter import faithful
from paceline.cli import select
from paceline.core.errors import PacelineError
from paceline.data._selection import Losses, losses_of
from paceline.data.color_filter import ColorFilter, example, naive_color_filter
from paceline.data.domains import DOMAINS
from paceline.lm.table import Table


def test_it_equals_its_reference():
    assert faithful()


@pytest.mark.parametrize("fraction", [0.03, 0.25, 0.5, 1.0])
def test_it_equals_the_naive_form(fraction):
    draws = torch.Generator().manual_seed(2)
    losses = Losses(*torch.randint(5, (2, 101), generator=draws).double())  # many ties
    assert ColorFilter().select(losses, fraction).tolist() == naive_color_filter(ColorFilter(), losses, fraction)


def test_what_is_easy_in_any_case_is_not_wanted_for_it():
    selector, losses = example()
    assert selector.select(losses, 0.4).tolist() == [1] and losses.conditional.argmin() == 2


def test_the_score_is_the_log_likelihood_ratio_a_token():
    """With the true models of two sources, documents of the target's source are kept without error."""
    tables = [torch.tensor([[2.0, 0.0], [0.0, 2.0]]).double(), torch.tensor([[0.0, 2.0], [2.0, 0.0]]).double()]
    draws = torch.Generator().manual_seed(0)
    documents, truth = [], torch.arange(60) % 3 == 0
    for target in truth.tolist():
        chances, ids = tables[int(target)].softmax(-1), [0]
        for _ in range(80):
            ids.append(int(torch.multinomial(chances[ids[-1]], 1, generator=draws)))
        documents.append(torch.tensor(ids))
    losses = Losses(losses_of(Table(tables[0]), documents), losses_of(Table(tables[1]), documents))
    assert ColorFilter().select(losses, 1 / 3).tolist() == truth.nonzero().flatten().tolist()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pool of prose and tables, and a target sample of other prose."""
    folder = tmp_path_factory.mktemp("select")
    (folder / "pool").mkdir()
    prose, tables = ([d for d in DOMAINS[name]() if len(d.content) > 2_000][:30] for name in ("prose", "table"))
    for number, document in enumerate(prose[:10]):
        (folder / "pool" / f"prose{number}.txt").write_bytes(document.content[:2_000])
    for number, document in enumerate(tables):
        (folder / "pool" / f"table{number}.txt").write_bytes(document.content[:2_000])
    (folder / "pool" / "empty.txt").write_text("\n \n")
    (folder / "pool" / "binary.txt").write_bytes(b"\x00\x01\xff\xfe" * 50)
    (folder / "target.txt").write_bytes(b"\n".join(d.content for d in prose[10:])[:20_000])
    return folder


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(select, "TOKENS", 60_000)


def test_select_writes_what_is_like_the_target_in_order(place, quick, tmp_path, capsys):
    out = tmp_path / "kept.jsonl"
    select.run(str(place / "pool"), [str(place / "target.txt")], 0.2, out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    names = [row["source"] for row in rows]
    assert len(rows) == 8 and names == sorted(names) and sum("prose" in name for name in names) >= 7
    assert all(row["text"] and isinstance(row["score"], float) for row in rows)
    printed = capsys.readouterr().out
    assert "Skipped: 1 empty, 1 binary." in printed and "Kept 8 of 40 documents, 16,000 bytes" in printed


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"keep": 0.0}, "--keep 0.0 is no share"),
        ({"keep": 1.0}, "--keep 1.0 is no share"),
        ({"folder": "nowhere"}, "There is no file or folder 'nowhere'"),
        ({"target": ["small.txt"]}, "too few to select by: give at least 4,000"),
        ({"folder": "few"}, "holds 1 documents of text, at least 10"),
        ({"folder": "none"}, "holds no text file"),
        ({"out": "pool"}, "is a folder"),
        ({"out": "kept.txt"}, "end in .jsonl"),
        ({"out": "pool/kept.jsonl"}, "lies in the folder that is selected from"),
        ({"conditional": "smollm2"}, "give it by --prior"),
        ({"by": "recall"}, "it is a task"),
        ({"by": "color_filtr"}, "color_filter"),
        ({"target": []}, "by --target"),
    ],
)
def test_what_cannot_work_is_refused(place, tmp_path, monkeypatch, change, says):
    monkeypatch.chdir(place)
    (place / "small.txt").write_text("too little")
    (place / "few").mkdir(exist_ok=True)
    (place / "few" / "a.txt").write_text("one document")
    (place / "none").mkdir(exist_ok=True)
    given = {"folder": "pool", "target": ["target.txt"], "keep": 0.1, "out": tmp_path / "kept.jsonl", **change}
    given["out"] = place / given["out"]
    with pytest.raises(PacelineError, match=says):
        select.run(**given)
    assert not (tmp_path / "kept.jsonl").exists()


def test_what_is_selected_by_lot_needs_no_target(place, tmp_path, capsys):
    outs = [tmp_path / f"{seed}.jsonl" for seed in (1, 2)]
    for seed, out in zip((1, 2), outs, strict=True):
        select.run(str(place / "pool"), [], 0.5, out, by=f"random_selection(seed={seed})")
    one, other = (out.read_text(encoding="utf-8").splitlines() for out in outs)
    assert len(one) == len(other) == 20 and one != other and "Kept 20 of 40" in capsys.readouterr().out


def test_given_models_are_used_as_they_are(place, tmp_path, capsys):
    """A byte model is tuned here; any other is refused without its tuned form."""
    from paceline.lm.checkpoint import save_model
    from paceline.lm.config import build, fit

    torch.manual_seed(0)
    config = fit(["attention"], 256, 20_000)
    save_model(build(config), config, tmp_path / "prior")
    out, target = tmp_path / "kept.jsonl", [str(place / "target.txt")]
    select.run(str(place / "pool"), target, 0.2, out, prior=str(tmp_path / "prior"))
    assert "Kept 8 of 40" in capsys.readouterr().out
    select.run(
        str(place / "pool"), target, 0.2, out, prior=str(tmp_path / "prior"), conditional=str(tmp_path / "prior")
    )
    assert "No document became likelier" in capsys.readouterr().out
