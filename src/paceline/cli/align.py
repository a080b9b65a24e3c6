"""`paceline align`: a model with a reward that the user wrote, or with preferences."""

import json
from pathlib import Path
from typing import Any

import torch
import typer
from rich.console import Console

from paceline.align._contract import Choice, Pairwise
from paceline.align._rollout import Reward, rewards_of, write, writer
from paceline.align._trainer import Pair, Plan, Round, improve, prefer
from paceline.core.errors import PacelineError
from paceline.core.files import write_json
from paceline.core.lock import NAME
from paceline.lm.adapted import Ready, ready
from paceline.lm.open import Opened, open_lm
from paceline.race.aligning import LONGEST, judged, objective, user_function
from paceline.race.prompts import read_prompts


def run(
    model: str,
    how: str,
    reward: str | None,
    preferences: Path | None,
    prompts: Path | None,
    out: Path,
    plan: Plan,
    seed: int,
) -> None:
    """Train near the model as it was, tell reward against divergence round by round, and save.

    Raises:
        PacelineError: no such method, a reward or file that does not fit it, or a place that cannot be written.
    """
    method = objective(how)
    if out.exists() and (not out.is_dir() or any(path.name != NAME for path in out.iterdir())):
        raise PacelineError(f"--out {out} is there already: give a new folder.")
    console = Console(highlight=False)
    if isinstance(method, Pairwise):
        if preferences is None or reward or prompts:
            raise PacelineError(
                f"{how} learns from --preferences FILE.jsonl alone: give that, no reward and no prompts."
            )
        pairs = read_preferences(preferences)
    elif reward is None or prompts is None or preferences:
        raise PacelineError(f"{how} learns from a reward: give --reward FILE.py:FUNCTION and --prompts FILE.")
    given, opened = ready(model), open_lm(model)
    table: list[dict[str, Any]] = []
    stopped = False
    try:
        if isinstance(method, Pairwise):
            table = _preferred(given, opened, method, pairs, plan, seed, console)
        else:
            assert reward is not None and prompts is not None
            asked = [opened.words.encode(text)[-LONGEST:] for text in read_prompts(prompts)]
            earned = judged(user_function(reward), opened.words)
            if isinstance(method, Choice):
                _chosen(given, opened, method, asked, earned, plan, seed, console)
                return
            improve(given.model, asked, earned, method, plan, seed, opened.ends, lambda r: _tell(r, table, console))
    except KeyboardInterrupt:
        stopped = True
        console.print(f"Stopped after {len(table)} rounds; the model as it is then is kept.")
    given.save(out)
    write_json(out / "aligned.json", {"model": model, "how": how, "seed": seed, "rounds": table})
    console.print(f"Use it: paceline generate {out} --prompt 'The '", markup=False, soft_wrap=True)
    if stopped:
        raise typer.Exit(130)


def read_preferences(path: Path) -> list[tuple[str, str, str]]:
    """Prompt, chosen and rejected text of each line of a .jsonl file.

    Raises:
        PacelineError: it cannot be read, or a line lacks one of the three.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise PacelineError(f"Cannot read --preferences {path} ({error}).") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            texts = tuple(record[name] for name in ("prompt", "chosen", "rejected"))
        except KeyError as error:
            raise PacelineError(
                f"Line {number} of {path} has no field {error}: give prompt, chosen, rejected."
            ) from error
        except (ValueError, TypeError, RecursionError) as error:
            raise PacelineError(f"Line {number} of {path} is no JSON object: give prompt, chosen, rejected.") from error
        if not all(isinstance(text, str) and text for text in texts):
            raise PacelineError(f"Line {number} of {path} has a field that is empty or no text.")
        found.append(texts)
    if not found:
        raise PacelineError(f"{path} holds no preferences: give lines of JSON with prompt, chosen, rejected.")
    return found


def _tell(done: Round, table: list[dict[str, Any]], console: Console) -> None:
    table.append(vars(done))
    console.print(
        f"round {done.number + 1}: reward {done.reward:.3f}, {done.kl:.2f} nats a text from the model as it was, "
        f"entropy {done.entropy:.2f}",
        soft_wrap=True,
    )


def _preferred(
    given: Ready,
    opened: Opened,
    objective: Pairwise,
    pairs: list[tuple[str, str, str]],
    plan: Plan,
    seed: int,
    console: Console,
) -> list[dict[str, Any]]:
    encode = opened.words.encode
    made = [
        Pair(encode(p)[-LONGEST:], _after(opened, p, chosen), _after(opened, p, other)) for p, chosen, other in pairs
    ]
    table: list[dict[str, Any]] = []

    def show(done: int, of: int, loss: float) -> None:
        table.append({"step": done, "loss": loss})
        if done == of or done % max(1, of // 10) == 0:
            console.print(f"step {done} of {of}: loss {loss:.3f}")

    prefer(given.model, made, objective, plan, seed, show)
    return table


def _after(opened: Opened, prompt: str, text: str) -> list[int]:
    """The tokens of a text as they follow a prompt: without what a tokenizer puts first."""
    whole, before = opened.words.encode(prompt + text), opened.words.encode(prompt)
    return whole[len(before) :] if whole[: len(before)] == before else opened.words.encode(text)


@torch.no_grad()
def _chosen(
    given: Ready,
    opened: Opened,
    choice: Choice,
    prompts: list[list[int]],
    reward: Reward,
    plan: Plan,
    seed: int,
    console: Console,
) -> None:
    """Answer each prompt by one of several texts; nothing is trained, so nothing is saved."""
    asked = [prompt for prompt in prompts for _ in range(choice.n)]
    texts = write(writer(given.model), asked, plan.tokens, seed, opened.ends)
    scores = rewards_of(reward, asked, texts).view(-1, choice.n)
    for row, best in enumerate(choice.choose(scores).tolist()):
        shown = opened.words.decode([*prompts[row], *texts[row * choice.n + best]])
        console.print(f"[{scores[row, best]:.3f}; mean {scores[row].mean():.3f}] {shown}", markup=False, soft_wrap=True)
