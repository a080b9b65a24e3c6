"""A small race's result, its page read back, and a browser: shared by the tests of this folder."""

import html
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

ATTACK = "<script>alert(1)</script>"
CHROMIUM = shutil.which("chromium")
VOID = {"meta", "link", "br", "img", "hr", "input"}


def ledger(scale: float = 1.0) -> dict[str, float]:
    return {"tokens": 1000, "flops": 2e9 * scale, "seconds": 3.0 * scale, "parameters": 1200,
            "state_bytes": int(4096 * scale), "peak_bytes": 10**7}  # fmt: skip


def cell(task: str, contestant: str, seed: int, score: float | None, **more: Any) -> dict[str, Any]:
    curve = [[t, 3.0 - t / 1000 + 0.01 * seed] for t in range(100, 1001, 100)]
    done = {"task": task, "contestant": contestant, "seed": seed, "status": "done", "reason": None, "score": score,
            "lr": 0.01, "curve": curve, "curve_unit": "bits per byte", "ledger": ledger(1 + len(contestant) / 9),
            "meters": {"activated": 0.25}, "trace": None}  # fmt: skip
    return done | more


def race() -> dict[str, Any]:
    """Two contestants, three seeds, one task; one cell failed, one has a trace."""
    gates = [0.0, 0.9, 0.0, 0.3, 0.0, 1.0]
    trace = {"tokens": list("ab\nc d"), "layers": [{"layer": 2, "gates": gates}]}
    scores = {"seqboat": [2.01, 2.02, 2.03], "attention(window=16)": [2.11, 2.12]}
    cells = [cell("text", name, seed, score) for name, row in scores.items() for seed, score in enumerate(row)]
    cells[0]["trace"] = trace
    lost = {"status": "failed", "reason": "loss was nan at step 41"}
    cells.append(cell("text", "attention(window=16)", 2, None, **lost))
    standing = {
        "seeds": 3,
        "failed": 0,
        "interval": [2.0, 2.04],
        "rank": 1,
        "mean": 2.02,
        "contestant": "seqboat",
        "warning": None,
    }
    second = standing | {
        "contestant": "attention(window=16)",
        "seeds": 2,
        "failed": 1,
        "rank": 2,
        "mean": 2.115,
        "warning": "The mean score is at the floor.",
    }
    pair = {"a": "seqboat", "b": "attention(window=16)", "difference": -0.095, "interval": [-0.11, -0.08], "p": 0.25,
            "p_holm": 0.25, "verdict": "not resolved", "seeds": 2, "interval_items": [-0.12, -0.07],
            "more_seeds": 4, "items": {"a": 310, "b": 180, "equal": 22, "p": 1e-6}}  # fmt: skip
    tuning = [{"task": "text", "contestant": name, "lr": lr, "score": 2.0 + lr, "status": "done", "reason": None}
              for name in scores for lr in (0.01, 0.1)]  # fmt: skip
    spent = {"tokens": 5000, "flops": 1e10, "seconds": 15.0}
    return {
        "schema": 1, "title": "A small race", "created": "2025-01-02T03:04:05", "answer": "Nothing is settled yet.",
        "tasks": [{"name": "text", "title": "Prose", "describe": "Predict the next byte.", "metric": "bits per byte",
                   "better": "lower", "floor": 8.0, "ceiling": None}],
        "contestants": list(scores), "seeds": [0, 1, 2], "tokens": {"text": 1000}, "parameters": {"text": 1200},
        "alpha": 0.05,
        "cells": cells, "tuning": tuning, "standings": {"text": [standing, second]}, "comparisons": {"text": [pair]},
        "bill": {"tuning": spent, "race": spent, "failed": spent},
        "winner": {"task": "text", "contestant": "seqboat", "seed": 1, "folder": "runs/best",
                   "command": "paceline generate runs/best"},
        "environment": {"python": "3.12"}, "limits": ["Three seeds cannot settle anything."],
    }  # fmt: skip


def confirmed() -> dict[str, Any]:
    """The same race, and its winner against the runner-up on two fresh seeds, of which one failed."""
    found = race()
    fresh = [{"contestant": name, "seed": seed, "status": "done", "reason": None, "score": 2 + len(name) / 200}
             for seed in (7, 8) for name in found["contestants"]]  # fmt: skip
    fresh[3] |= {"status": "failed", "score": None, "reason": "out of memory"}
    confirmation = {"task": "text", "a": "seqboat", "b": "attention(window=16)", "seeds": [7, 8], "difference": -0.1,
                    "interval": [-0.2, -0.05], "p": 0.5, "verdict": "not confirmed", "cells": fresh,
                    "sentence": "On 2 fresh seeds it is not confirmed."}  # fmt: skip
    bill = found["bill"] | {"confirmation": found["bill"]["race"]}
    return found | {"confirmation": confirmation, "bill": bill}


def empty() -> dict[str, Any]:
    return race() | {"contestants": [], "seeds": [], "cells": [], "tuning": [], "standings": {}, "comparisons": {},
                     "bill": {}, "winner": None, "environment": {}, "limits": [], "tokens": {}}  # fmt: skip


class Page(HTMLParser):
    """Collects what the facts are about; fails where tags do not balance."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"unclosed {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes another"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", "".join(self.words))


def assert_sound(page: str) -> Page:
    """Well-formed, without script, request or repeated id; charts are well-formed XML."""
    parsed = Page(page)
    assert "<script" not in page.lower()
    assert not any(key.startswith("on") for _, attrs in parsed.tags for key in attrs)
    ids = [attrs["id"] for _, attrs in parsed.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    for tag, attrs in parsed.tags:
        for key in ("src", "href", "xlink:href", "srcset", "data", "action"):
            assert (attrs.get(key) or "#").startswith(("#", "data:")), f"<{tag} {key}> asks for a file"
        assert not (attrs.get("href") or "").startswith("#") or str(attrs["href"])[1:] in ids
    assert not re.search(r"url\((?!#)", page) and "@import" not in page
    for svg in re.findall(r"<svg.*?</svg>", page, re.S):
        ET.fromstring(svg)
    return parsed


FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
MORE = "--disable-component-update --disable-sync --virtual-time-budget=3000 --hide-scrollbars"


def chromium(page: Path, folder: Path, *flags: str) -> str:
    """What a browser that can resolve no name prints when it opens the page."""
    command = [str(CHROMIUM), *FLAGS.split(), *MORE.split(), f"--user-data-dir={folder / 'profile'}"]
    command.append("--host-resolver-rules=MAP * ~NOTFOUND")
    done = subprocess.run([*command, *flags, page.as_uri()], capture_output=True, text=True, timeout=90, check=True)
    return done.stdout


def browse(page: Path, folder: Path, *flags: str) -> str:
    """The document that a browser makes of a page, as HTML."""
    return chromium(page, folder, "--dump-dom", *flags)


def measure(page: str, width: int, expression: str, folder: Path, *flags: str) -> Any:
    """The JSON value of a JavaScript expression in the page, shown in a frame of `width` px.

    A frame because headless windows are never narrow; the page's own policy, which forbids scripts, is loosened.
    """
    assert "default-src 'none'" in page
    page = page.replace("default-src 'none'", "script-src 'unsafe-inline'; default-src 'none'")
    inner = page.replace("</body>", f"<script>document.title=JSON.stringify({expression})</script></body>")
    holder = (
        '<!doctype html><meta name="color-scheme" content="light dark">'
        f'<iframe width="{width}" height="800" style="border:0" srcdoc="{html.escape(inner)}"'
        ' onload="document.body.dataset.found=this.contentDocument.title"></iframe>'
    )
    (folder / "holder.html").write_text(holder)
    shown = browse(folder / "holder.html", folder, *flags)
    found = re.search(r'data-found="([^"]*)"', shown)
    assert found, shown[-500:]
    return json.loads(html.unescape(found[1]))
