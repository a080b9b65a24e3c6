"""What decoding SmolLM2 costs beside transformers and llama.cpp: `python benchmarks/decoding.py [--quick]`.

On an idle machine, all in one process, every rival in turn in every repeat; medians. Batch 1, greedy:
- tokens a second against what the machine's memory allows (the bytes of the weights, read at the rate measured in turn
  with them);
- drafts from the text itself, on text that repeats and on text that does not;
- 8-bit weights;
- one step after a long context, under policies that read a part of the cache;
- reading a prompt of 4,096 tokens, whole and by GemFilter;
- eight prompts side by side that begin alike.
llama.cpp is measured where `llama_cpp` is installed, at three precisions. Every part is written to
results/bench/decoding.json when it is done; `--only PART` measures one anew. Ten minutes on two cores.
"""

import argparse
import importlib.util
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from timing import in_turn, read_rate, seconds

from paceline.core.discovery import methods, part
from paceline.core.files import write_atomic
from paceline.data._corpus import default_documents
from paceline.decode._generate import Past, generate, generate_batch
from paceline.lm.open import Opened, open_lm, strategy, under
from paceline.lm.pretrained import pretrained
from paceline.lm.quick import quicken
from paceline.lm.siblings import trained
from paceline.race.result import environment

STORED = Path(__file__).parents[1] / "results" / "bench" / "decoding.json"
MODEL = "smollm2"
CODE = (
    "def add(a, b):\n    return a + b\n\n\ndef sub(a, b):\n    return a - b\n\n\ndef mul(a, b):\n    return a * b\n\n\n"
)
LOOKUP = "lookup"
LONG = 8_000
DRAFT = "speculative(draft='smollm2-draft')"
POLICIES = (
    "full",
    "quest(tokens=512)",
    "quest(page=32, tokens=256, dense_layers=1, together=True)",
    "tokenselect(tokens=512)",
    "tokenselect(tokens=256, four_bits=True)",
    "sinks(tokens=256)",
    "snapkv(tokens=256)",
    "h2o(tokens=256)",
    "quantised(bits=8)",
    "quantised(bits=4)",
)
"""The second of Quest and of TokenSelect reads less than a tenth of the keys' and values' bytes."""


def text() -> str:
    return "\n".join(document.content.decode(errors="ignore") for document in default_documents())


def rate(opened: Opened, decode: str, ids: list[int], tokens: int) -> float:
    """Tokens a second after the first."""
    changed, how = strategy(decode, opened)
    stream = generate(changed.lm, ids, how, tokens)
    stream.all()
    return stream.counts.tokens_per_second


def theirs(model: Any, ids: list[int], tokens: int) -> float:
    """The same by transformers: the time of `tokens` less that of one."""
    prompt = torch.tensor([ids])
    options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    one, all_ = (seconds(partial(model.generate, prompt, max_new_tokens=n, **options)) for n in (1, tokens))
    return (tokens - 1) / (all_ - one)


def short(opened: Opened, plain: Opened, model: Any, tokens: int, repeats: int) -> dict[str, Any]:
    """Batch 1 after a short prompt; `plain` is the same model with torch's products."""
    prose = opened.words.encode(text()[20_000:20_800])
    code = opened.words.encode(CODE)
    eight, _ = strategy("int8", opened)
    weights = sum(p.nbytes for p in {id(p): p for p in model.parameters()}.values())
    runs = {
        "limit": lambda: read_rate() / weights,
        "transformers, fp32": partial(theirs, model, prose, tokens),
        "greedy": partial(rate, opened, "greedy", prose, tokens),
        "greedy, torch's products": partial(rate, plain, "greedy", prose, tokens),
        "int8": partial(rate, eight, "greedy", prose, tokens),
        "lookup": partial(rate, opened, LOOKUP, prose, tokens),
        "greedy, code": partial(rate, opened, "greedy", code, tokens),
        "lookup, code": partial(rate, opened, LOOKUP, code, tokens),
        "int8 + lookup, code": partial(rate, eight, LOOKUP, code, tokens),
        **({"draft, code": partial(rate, opened, DRAFT, code, tokens)} if trained("smollm2-draft") else {}),
        **llama_cpp("Alone", prose, tokens),
    }
    took = in_turn(runs, repeats)
    return {"weight_bytes": weights, "limit": took.pop("limit"), "tokens_per_second": took}


def llama_cpp(kind: str, given: Any, tokens: int) -> dict[str, Callable[[], float]]:
    """What `llama_cpp_runs.py` has of this kind, in each precision, where llama.cpp is installed."""
    if importlib.util.find_spec("llama_cpp") is None:
        return {}
    import llama_cpp_runs

    with llama_cpp_runs.files(MODEL) as files:
        runs = {name: getattr(llama_cpp_runs, kind)(path, given, tokens) for name, path in files.items()}
    return {f"llama.cpp, {name}": run for name, run in runs.items()}


def long(opened: Opened, length: int, tokens: int, repeats: int) -> dict[str, Any]:
    """Milliseconds of a step after a long context, and what of the cache it reads."""
    ids = opened.words.encode(text()[:60_000])[:length]
    found: dict[str, Any] = {}
    runs: dict[str, Callable[[], float]] = {}
    for policy in POLICIES:
        if policy.split("(")[0] not in methods("context"):
            continue
        changed, how = strategy(policy, opened)
        past = Past()
        generate(changed.lm, ids[:-1], how, 1, past=past).all()  # all but the last: from there it goes on each time

        def step(changed: Opened = changed, how: Any = how, past: Past = past, policy: str = policy) -> float:
            stream = generate(changed.lm, ids, how, tokens, past=Past(list(past.ids), past.state))
            stream.all()
            found[policy] = {"state_mib": stream.counts.state_bytes / 2**20, **changed.lm.policy.meters()}  # type: ignore[attr-defined]
            return 1e3 / stream.counts.tokens_per_second

        runs[policy] = step
    for policy, value in in_turn(runs, repeats).items():
        found[policy]["ms_per_step"] = value
    return {"length": len(ids), "policies": found}


def prefill(opened: Opened, length: int, repeats: int) -> dict[str, Any]:
    """Seconds to read a prompt, whole and through GemFilter's early layers."""
    ids = opened.words.encode(text()[:40_000])[:length]
    greedy = part("decode", "greedy")()
    gems = {
        f"gemfilter(layer={layer}, tokens={length // 10})": under(
            opened, part("context", "gemfilter")(layer=layer, tokens=length // 10)
        )
        for layer in (12, 21)
    }

    def first(lm: Any) -> float:
        stream = generate(lm, ids, greedy, 1)
        stream.all()
        return stream.counts.first

    runs = {"whole": opened.lm, **gems}
    return {
        "length": len(ids),
        "seconds": in_turn({name: partial(first, lm) for name, lm in runs.items()}, repeats),
    }


def side_by_side(opened: Opened, model: Any, tokens: int, repeats: int) -> dict[str, Any]:
    """Tokens a second of eight prompts of unequal length that begin alike."""
    words = opened.words.encode(text()[20_000:22_000])
    prompts = [words[: 200 + 10 * index] for index in range(8)]
    greedy = part("decode", "greedy")()

    def ours() -> float:
        made, counts = generate_batch(opened.lm, prompts, greedy, tokens)
        return sum(map(len, made)) / counts.seconds

    def alone() -> float:
        past, began, made = Past(), time.perf_counter(), 0
        for prompt in prompts:
            made += len(generate(opened.lm, prompt, greedy, tokens, past=past).all())
        return made / (time.perf_counter() - began)

    def padded() -> float:
        longest = max(map(len, prompts))
        ids = torch.tensor([[0] * (longest - len(p)) + p for p in prompts])
        mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
        options = {"do_sample": False, "pad_token_id": 0, "eos_token_id": None, "max_new_tokens": tokens}
        return 8 * tokens / seconds(partial(model.generate, ids, attention_mask=mask, **options))

    runs = {"ours": ours, "one after the other": alone, "transformers": padded}
    return in_turn(runs | llama_cpp("SideBySide", prompts, tokens), repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few tokens, short contexts")
    parser.add_argument("--only", choices=("short", "long", "prefill", "batch"), help="measure one part anew")
    parser.add_argument("--out", type=Path, default=STORED)
    given = parser.parse_args()
    from transformers import AutoModelForCausalLM

    plain = open_lm(MODEL)
    opened = replace(plain, lm=quicken(plain.lm))
    model = AutoModelForCausalLM.from_pretrained(pretrained(MODEL)).eval()
    tokens, repeats, length = (16, 1, 1_000) if given.quick else (64, 3, LONG)
    versions = {n: metadata.version(n) for n in ("transformers", "llama-cpp-python") if _there(n)}
    result: dict[str, Any] = json.loads(given.out.read_text()) if given.only and given.out.is_file() else {}
    result |= {"environment": environment() | versions, "threads": torch.get_num_threads()}
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "short": partial(short, opened, plain, model, tokens, 3 * repeats),  # the cheapest, and compared most closely
        "long": partial(long, opened, length, tokens // 2, repeats),
        "prefill": partial(prefill, opened, length // 2, repeats),
        "batch": partial(side_by_side, opened, model, tokens // 2, repeats),
    }
    for name in [given.only] if given.only else parts:
        result[name] = parts[name]()
        write_atomic(given.out, json.dumps(result, indent=1) + "\n")
    if parts.keys() <= result.keys():
        show(result)


def _there(distribution: str) -> bool:
    try:
        return bool(metadata.version(distribution))
    except metadata.PackageNotFoundError:
        return False


def show(result: dict[str, Any]) -> None:
    """The tables."""
    console, limit = Console(width=110), result["short"]["limit"]
    table = Table("batch 1", "tokens a second", "of fp32's memory limit", title=f"limit {limit:.1f} tokens a second")
    for name, value in result["short"]["tokens_per_second"].items():
        table.add_row(name, f"{value:.1f}", f"{value / limit:.0%}")
    console.print(table)
    table = Table("policy", "ms a step", "state, MiB", "meters", title=f"after {result['long']['length']:,} tokens")
    for name, facts in result["long"]["policies"].items():
        rest = {k: round(v, 4) for k, v in facts.items() if k not in ("ms_per_step", "state_mib")}
        table.add_row(name, f"{facts['ms_per_step']:.1f}", f"{facts['state_mib']:.0f}", str(rest))
    console.print(table)
    console.print("prefill, seconds:", result["prefill"], "batch 8, tokens a second:", result["batch"])


if __name__ == "__main__":
    main()
