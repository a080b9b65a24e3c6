"""Our greedy decoding beside transformers' on real prompts, token for token: `python stress/greedy.py [--prompts 200]`.

SmolLM2 continues the beginnings of documentation topics and modules that come with Python, of different lengths, by
both. Where they part, the difference of transformers' two largest logits there is told: two orders of the same sums
may choose differently only where that is of the size of their rounding. Writes results/greedy.json; about ten minutes
on two cores.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from paceline.core.files import write_json
from paceline.data._corpus import default_documents
from paceline.decode._generate import generate
from paceline.decode.greedy import Greedy
from paceline.lm.open import open_lm
from paceline.lm.pretrained import pretrained
from paceline.lm.quick import quicken
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "greedy.json"
ROUNDING = 1e-3
"""Largest gap of two logits that rounding may turn, in float32 over 30 layers."""


def prompts(count: int) -> list[str]:
    """Beginnings of 40 to 1,200 bytes."""
    documents = [d.content for d in default_documents() if len(d.content) > 1_200]
    sizes = (40, 100, 250, 600, 1_200)
    return [documents[i % len(documents)][: sizes[i % len(sizes)]].decode(errors="ignore") for i in range(count)]


@torch.no_grad()
def gap(model: Any, ids: list[int]) -> float:
    """Difference of the two largest logits after `ids`."""
    top = model(torch.tensor([ids]), use_cache=False).logits[0, -1].topk(2).values
    return float(top[0] - top[1])


def main() -> None:
    """Compare, write, and fail where rounding cannot explain a difference."""
    from transformers import AutoModelForCausalLM

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=24)
    given = parser.parse_args()
    opened, began = open_lm("smollm2"), time.monotonic()
    lm = quicken(opened.lm)
    model = AutoModelForCausalLM.from_pretrained(pretrained("smollm2")).eval()
    texts, parted = prompts(given.prompts), []
    options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "max_new_tokens": given.tokens}
    for text in track(texts, "continue"):
        ids = opened.words.encode(text)
        ours = generate(lm, ids, Greedy(), given.tokens).all()
        theirs = model.generate(torch.tensor([ids]), **options)[0, len(ids) :].tolist()
        if ours != theirs:
            place = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
            parted.append({"prompt": text[:60], "at": place, "gap": gap(model, [*ids, *theirs[:place]])})
    worst = max((row["gap"] for row in parted), default=0.0)
    write_json(
        STORED,
        {
            "prompts": len(texts), "tokens": given.tokens, "equal": len(texts) - len(parted), "parted": parted,
            "seconds": round(time.monotonic() - began, 1), "environment": environment(),
        },
    )  # fmt: skip
    print(f"{len(texts) - len(parted)} of {len(texts)} prompts are continued alike; largest gap where not: {worst:.2e}")
    raise SystemExit(worst > ROUNDING)


if __name__ == "__main__":
    main()
