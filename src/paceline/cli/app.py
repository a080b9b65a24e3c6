"""The commands and their options."""

from pathlib import Path
from typing import Annotated

import typer

from paceline import __version__

app = typer.Typer(
    name="paceline",
    help="Find the published methods that improve your sequence model, with the proof.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

TextOption = Annotated[
    list[str] | None,
    typer.Option("--text", help="File, folder or glob of .txt .md .py .jsonl .csv .parquet; repeatable."),
]
FieldOption = Annotated[str | None, typer.Option(help="Field or column that holds the text in .jsonl, .csv, .parquet.")]
FeedForwardOption = Annotated[
    str, typer.Option("--feed-forward", help="Block after each mixer: swiglu, 'moe(experts=4)'.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command("race")
def race_command(
    contestants: Annotated[list[str] | None, typer.Argument(help="Such as: seqboat 'attention(window=64)'.")] = None,
    text: TextOption = None,
    task: Annotated[str | None, typer.Option(help="A generated task instead, such as 'recall(pairs=8)'.")] = None,
    field: FieldOption = None,
    tokens: Annotated[int | None, typer.Option(help="Training tokens of a cell.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Replicates. Default: enough to settle every pair.")] = None,
    params: Annotated[int | None, typer.Option(help="Parameters that every model is matched to.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the race. Default: runs/race-<what is raced>.")] = None,
    keep: Annotated[Path | None, typer.Option(help="Folder for the winner. Default: <out>/winner.")] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Race the winner against its runner-up once more, on fresh seeds.")
    ] = False,
    encoder: Annotated[
        bool, typer.Option("--encoder", help="Race encoders, which read both ways, on a --task with one answer.")
    ] = False,
    feed_forward: FeedForwardOption = "swiglu",
    on: Annotated[str, typer.Option(help="Where cells run: here, or ray (a Ray cluster).")] = "here",
    on_model: Annotated[
        str | None, typer.Option("--on-model", help="Race ways to decode this model: a folder, or smollm2.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="For --on-model: texts apart by empty lines, or .jsonl.")] = None,
    json: JsonOption = False,
) -> None:
    """Race models side by side under one budget; with no arguments, the default race (about five minutes)."""
    if on_model is not None or prompts is not None:
        from paceline.cli.on_model import run as run_on_model

        others = {
            "--text": text,
            "--task": task,
            "--params": params,
            "--keep": keep,
            "--encoder": encoder,
            "--field": field,
            "--on": on != "here",
            "--feed-forward": feed_forward != "swiglu",
        }
        run_on_model(
            contestants or [], on_model, prompts, tokens, seeds, out, confirm,
            [name for name, value in others.items() if value], json,
        )  # fmt: skip
        return
    from paceline.cli.race import run

    form = "encoder" if encoder else "decoder"
    run(
        contestants or [], text or [], task, field, tokens, seeds, params, out, keep, confirm, form, feed_forward, on,
        json,
    )  # fmt: skip


@app.command("report")
def report_command(
    race: Annotated[Path, typer.Argument(help="Folder of a finished race, or its result.json.")],
    to: Annotated[Path | None, typer.Option(help="File to write: .html, .parquet or .csv.")] = None,
    log: Annotated[str | None, typer.Option(help="Log every cell to mlflow or trackio.")] = None,
    project: Annotated[str | None, typer.Option(help="Experiment or project of --log. Default: paceline.")] = None,
) -> None:
    """Write a race's page anew, export its result, or log it to a tracker."""
    from paceline.cli.report import run

    run(race, to, log, project)


@app.command("list")
def list_command(
    families: Annotated[list[str] | None, typer.Argument(help="Families to list. Default: all.")] = None,
    json: JsonOption = False,
) -> None:
    """List the methods: family, name, papers, marks and effect."""
    from paceline.cli.catalogue import print_list

    print_list(families or [], json)


@app.command("show")
def show_command(method: Annotated[str, typer.Argument(help="A method's name.")], json: JsonOption = False) -> None:
    """Show one method: what it computes, where it comes from, how to use it, what is proven."""
    from paceline.cli.catalogue import print_method

    print_method(method, json)


@app.command("claim")
def claim_command(
    method: Annotated[str, typer.Argument(help="A method with a claim; `paceline claims` lists them.")],
    budget: Annotated[str, typer.Option(help="smoke (seconds), cpu (minutes) or gpu.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the runs.")] = Path("runs/claims"),
    again: Annotated[bool, typer.Option("--again", help="Run even where the verdict on file is fresh.")] = False,
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Run one seed: does changed code still give a stale verdict's numbers?")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Put a paper's claim to the test: HOLDS, FAILS, EQUIVALENT or UNCLEAR."""
    from paceline.cli.claims import run

    run(method, budget, out, again, reproduce, json)


@app.command("claims")
def claims_command(json: JsonOption = False) -> None:
    """List the claims and their verdicts, and whether they are fresh."""
    from paceline.cli.claims import print_claims

    print_claims(json)


@app.command("train")
def train_command(
    mixer: Annotated[
        str,
        typer.Argument(
            help="Such as: seqboat, or 'attention(window=64)'; a saved model's folder, to go on; or a recipe: "
            "smollm2-draft, smollm2-expert, smollm2-reward, smollm2-head."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for the model. A recipe has its own.")] = None,
    text: TextOption = None,
    field: FieldOption = None,
    tokens: Annotated[int, typer.Option(help="Training tokens.")] = 500_000,
    params: Annotated[
        int | None, typer.Option(help="Parameters of the model. Default: 360,000; 7,000,000 with --tokenizer.")
    ] = None,
    layers: Annotated[int | None, typer.Option(help="Layers, all alike. Default: 2.")] = None,
    length: Annotated[int, typer.Option(help="Bytes, or tokens, of a training window.")] = 256,
    batch: Annotated[int, typer.Option(help="Windows of a step.")] = 8,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 3e-3,
    optimizer: Annotated[str, typer.Option(help="Such as adamw, muon, 'soap(every=20)'.")] = "adamw",
    feed_forward: FeedForwardOption = "swiglu",
    seed: Annotated[int, typer.Option(help="Of the initialisation and the data order.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, bit for bit.")] = False,
    parallel: Annotated[str, typer.Option(help="Under torchrun: ddp, or fsdp for a model that is cut up.")] = "ddp",
    tokenizer: Annotated[
        str | None, typer.Option(help="Read a model's tokens instead of bytes: its folder, or smollm2.")
    ] = None,
) -> None:
    """Train one model on text and save it; on several processes under `torchrun -m paceline train ...`."""
    from paceline.cli.siblings import train_sibling
    from paceline.cli.train import run
    from paceline.lm.siblings import SIBLINGS

    if mixer in SIBLINGS:
        if out or text or tokenizer or params or layers or optimizer != "adamw":
            raise typer.BadParameter(f"{mixer} is a recipe: it takes --resume and no other option.")
        train_sibling(mixer, resume)
        return
    if out is None:
        raise typer.BadParameter(
            f"give a folder for the model, or a recipe: {', '.join(SIBLINGS)}.", param_hint="--out"
        )
    run(
        mixer, out, text or [], field, tokens, params, layers, length, batch, lr, feed_forward, seed, resume, parallel,
        tokenizer, optimizer,
    )  # fmt: skip


@app.command("generate")
def generate_command(
    model: Annotated[str, typer.Argument(help="Folder of a saved model, Paceline's or Hugging Face's, or smollm2.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")],
    tokens: Annotated[int, typer.Option(help="Tokens to generate.")] = 200,
    decode: Annotated[str | None, typer.Option(help="Such as greedy, 'lookup(guesses=8)', 'beam(width=4)'.")] = None,
    context: Annotated[str | None, typer.Option(help="A cache policy, such as 'quest(tokens=256)'.")] = None,
    temperature: Annotated[float, typer.Option(help="Without --decode; 0 takes the likeliest token.")] = 0.8,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    stop: Annotated[list[str] | None, typer.Option(help="Text that ends it; repeatable.")] = None,
    counts: Annotated[bool, typer.Option("--counts", help="Say at the end what it took.")] = False,
) -> None:
    """Continue a text with a saved model."""
    from paceline.cli.generate import run

    run(model, prompt, tokens, decode, context, temperature, seed, stop or [], counts)


@app.command("find")
def find_command(
    problem: Annotated[str, typer.Argument(help="Such as: 'forgets the middle of long documents'.")],
    k: Annotated[int, typer.Option("-k", help="How many methods.")] = 5,
    dense: Annotated[bool, typer.Option("--dense", help="Rank by meaning, too: MiniLM, if it is installed.")] = False,
    json: JsonOption = False,
) -> None:
    """Find methods for a problem, each with what was found of it and how to try it."""
    from paceline.cli.find import run

    run(problem, k, dense, json)


@app.command("search")
def search_command(
    folder: Annotated[Path, typer.Argument(help="Folder of text files.")],
    query: Annotated[str, typer.Argument(help="What to look for.")],
    how: Annotated[str, typer.Option("--with", help="bm25, dense, or 'hyde(documents=4)'.")] = "bm25",
    model: Annotated[str | None, typer.Option(help="For hyde, which model writes. Default: smollm2.")] = None,
    k: Annotated[int, typer.Option("-k", help="How many passages.")] = 5,
    json: JsonOption = False,
) -> None:
    """Search a folder's text files by words, by meaning, or by documents that a model imagines."""
    from paceline.cli.search import run

    run(folder, query, how, model, k, json)
