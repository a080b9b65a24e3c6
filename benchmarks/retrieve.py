"""What search costs beside the libraries: `python benchmarks/retrieve.py [--quick]`.

In one process, every rival in turn in every repeat; medians, one thread:
- bm25: our search against `bm25s.BM25.retrieve` with the same words and settings, on random Zipf texts;
- dense: our exact search against `sentence_transformers.util.semantic_search` on the same vectors.
Written to results/bench/retrieve.json; with `--quick` only shown. A minute on two cores.
"""

import argparse
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import torch
from rich.console import Console
from sentence_transformers.util import semantic_search
from timing import timed
from torch.nn import functional

from paceline.core.files import write_json
from paceline.race.result import environment
from paceline.retrieve.bm25 import BM25
from paceline.retrieve.dense import Dense

STORED = Path(__file__).parents[1] / "results" / "bench" / "retrieve.json"
QUERIES, K = 64, 10


def words(documents: int, repeats: int) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    texts = [" ".join(f"w{word}" for word in row) for row in draws.zipf(1.3, (documents, 60)) % 50_000]
    queries = [" ".join(f"w{word}" for word in row) for row in draws.zipf(1.3, (QUERIES, 6)) % 50_000]
    ours = BM25()
    ours.index(texts)
    theirs = bm25s.BM25(k1=1.5, b=0.75, method="lucene")
    theirs.index(bm25s.tokenize(texts, show_progress=False, return_ids=False), show_progress=False)

    def plain() -> Any:
        tokens = bm25s.tokenize(queries, show_progress=False, return_ids=False)
        return theirs.retrieve(tokens, k=K, show_progress=False)

    same = np.allclose(ours.search(queries, K).scores, plain().scores, atol=1e-4)
    took = timed({"ours": lambda: ours.search(queries, K), "bm25s": plain}, repeats)
    return {"documents": documents, "queries": QUERIES, "same scores": bool(same), **took}


def vectors(documents: int, repeats: int) -> dict[str, Any]:
    draws = torch.Generator().manual_seed(0)
    held = functional.normalize(torch.randn(documents, 384, generator=draws), dim=1)
    asked = functional.normalize(torch.randn(QUERIES, 384, generator=draws), dim=1)
    ours = Dense.__new__(Dense)
    ours.restore({"vectors": held.numpy()}, {"size": documents})

    def plain() -> Any:
        return semantic_search(asked, held, top_k=K)

    same = ours.near(asked, K).ids.tolist() == [[hit["corpus_id"] for hit in hits] for hits in plain()]
    took = timed({"ours": lambda: ours.near(asked, K), "semantic_search": plain}, repeats)
    return {"documents": documents, "queries": QUERIES, "same documents": same, **took}


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    arguments.add_argument("--quick", action="store_true")
    quick = arguments.parse_args().quick
    torch.set_num_threads(1)
    sizes, repeats = ((2_000, 50_000), 3) if quick else ((2_000, 20_000, 200_000), 9)
    found = {"bm25": [words(n, repeats) for n in sizes], "dense": [vectors(n, repeats) for n in sizes]}
    Console().print(found)
    if not quick:
        write_json(STORED, {"environment": environment(), **found})


if __name__ == "__main__":
    main()
