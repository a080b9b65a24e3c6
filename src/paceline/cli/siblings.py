"""`paceline train smollm2-draft` and its like: the recipes of `lm/siblings.py`, carried out once."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Int
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from paceline.cli import train
from paceline.core.files import write_json
from paceline.data._corpus import default_documents, prepare
from paceline.data.token_text import TokenText
from paceline.decode._acceptance import train_head
from paceline.lm.checkpoint import load_model, save_model
from paceline.lm.layers import layered
from paceline.lm.open import open_lm
from paceline.lm.reward import train_reward
from paceline.lm.siblings import HEAD, SIBLINGS, Sibling, copy_tokenizer, known_or_folder, trained

PROSE = "pydoc:"
"""What the names of the documentation's topics begin with."""


def train_sibling(name: str, resume: bool) -> None:
    """Train what `name` is the recipe of, and what it begins with.

    Raises:
        PacelineError: it is there already, or as `paceline train`.
    """
    recipe = SIBLINGS[name]
    if trained(name):
        Console().print(f"{name} is trained already: {recipe.folder}", highlight=False, soft_wrap=True)
        return
    if recipe.role == "draft":
        _on_text(recipe.mixer, recipe, [], resume)
        return
    draft = f"{recipe.of}-draft"
    if not trained(draft):
        train_sibling(draft, resume)
    if recipe.role == "reward":
        return _on_preferences(recipe, SIBLINGS[draft].folder)
    if recipe.role == "head":
        return _head(recipe, draft)
    folder = recipe.folder.parent / "documentation"
    folder.mkdir(parents=True, exist_ok=True)
    for number, document in enumerate(d for d in default_documents() if d.name.startswith(PROSE)):
        (folder / f"{number:03d}.txt").write_bytes(document.content)
    _on_text(str(SIBLINGS[draft].folder), recipe, [str(folder)], resume)


def _on_text(mixer: str, recipe: Sibling, text: list[str], resume: bool) -> None:
    fresh = not Path(mixer).is_dir()
    parameters, layers, tokenizer = (recipe.parameters, recipe.layers, recipe.of) if fresh else (None, None, None)
    train.run(
        mixer, recipe.folder, text, None, recipe.tokens, parameters, layers, recipe.length, recipe.batch, recipe.lr,
        "swiglu", 0, resume, "ddp", tokenizer,
    )  # fmt: skip


def _head(recipe: Sibling, draft: str) -> None:
    """For text that is chosen greedily."""
    target, helper = open_lm(recipe.of), open_lm(draft)
    documents = [document.content for document in default_documents() if len(document.content) > 2_000]
    count = max(1, recipe.tokens // recipe.length)
    starts = [documents[len(documents) * i // count][:400].decode(errors="ignore") for i in range(count)]
    console = Console()
    with console.status(f"{recipe.of} continues {count} texts by {recipe.length} tokens, then the head is trained"):
        head = train_head(
            target.lm, layered(helper.lm), [target.words.encode(text) for text in starts], tokens=recipe.length,
            temperature=0.0, lr=recipe.lr,
        )  # fmt: skip
    place = recipe.folder / HEAD
    head.save(place)
    write_json(recipe.folder / "training.json", {"texts": count, "tokens": recipe.length})
    console.print(
        f"Use it: paceline generate {recipe.of} --decode \"specdec_pp(draft='{draft}', head='{place}')\" "
        "--prompt 'The '",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def _on_preferences(recipe: Sibling, draft: Path) -> None:
    """Documentation is preferred to code."""
    model, config = load_model(draft)
    pairs = preferences(known_or_folder(recipe.of), recipe.length, recipe.batch)
    steps = recipe.tokens // (2 * recipe.batch * recipe.length)
    with Progress(transient=True) as bars:
        line = bars.add_task("train", total=steps)
        losses = train_reward(
            model, pairs, steps, lr=recipe.lr, progress=lambda done, of, loss: bars.update(line, completed=done)
        )
    save_model(model, config, recipe.folder)
    copy_tokenizer(draft, recipe.folder)
    write_json(recipe.folder / "training.json", {"losses": losses})
    last = sum(losses[-10:]) / len(losses[-10:])
    Console().print(f"Preference loss {losses[0]:.3f}, at the end {last:.3f}: {recipe.folder}", soft_wrap=True)


def preferences(tokenizer: Path, length: int, batch: int) -> Callable[[int], tuple[Tensor, Tensor]]:
    """Windows of documentation, each with one of code, as batches by the step's number."""
    folder = Path(tempfile.mkdtemp())
    try:
        sides = []
        for prose in (True, False):
            place = folder / str(prose)
            prepare((d for d in default_documents() if d.name.startswith(PROSE) is prose), place)
            sides.append(torch.from_numpy(TokenText(place, tokenizer, length).tokens("train").astype("int64")))
    finally:
        shutil.rmtree(folder)

    def draw(step: int) -> tuple[Int[Tensor, "b t"], Int[Tensor, "b t"]]:
        generator = torch.Generator().manual_seed(step)
        starts = [torch.randint(len(side) - length, (batch,), generator=generator) for side in sides]
        preferred, other = (
            torch.stack([side[s : s + length + 1] for s in at.tolist()]) for side, at in zip(sides, starts, strict=True)
        )
        return preferred, other

    return draw
