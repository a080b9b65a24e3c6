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
        str | None,
        typer.Option(
            "--on-model", help="Race ways to decode this model (a folder, or smollm2); with --text, to adapt it."
        ),
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="For --on-model: texts apart by empty lines, or .jsonl.")] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Race pipelines on these instead: .jsonl of inputs and answer; see --tokens.")
    ] = None,
    calls: Annotated[int | None, typer.Option(help="For --questions: most calls of the model a question.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="Race ways to align --on-model to it instead: FILE.py:FUNCTION; see --prompts.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Race models side by side under one budget; with no arguments, the default race (about five minutes)."""
    if reward is not None:
        from paceline.cli.aligning import run as align

        unfit = {
            "--text": text, "--task": task, "--params": params, "--encoder": encoder, "--field": field,
            "--on": on != "here", "--feed-forward": feed_forward != "swiglu", "--questions": questions,
            "--calls": calls,
        }  # fmt: skip
        align(
            contestants or [], on_model, reward, prompts, tokens, seeds, out, keep, confirm,
            [name for name, value in unfit.items() if value], json,
        )  # fmt: skip
        return
    if questions is not None:
        from paceline.cli.prompt import race

        if text or task or params or keep or encoder or prompts or on != "here":
            raise typer.BadParameter("--questions takes --on-model, --calls, --tokens, --seeds and --out alone.")
        race(contestants or [], on_model or "smollm2", questions, calls, tokens, seeds, out, confirm, json)
        return
    if on_model is not None or prompts is not None:
        from paceline.cli.on_model import run as run_on_model

        others = {
            "--task": task,
            "--params": params,
            "--encoder": encoder,
            "--on": on != "here",
            "--feed-forward": feed_forward != "swiglu",
        }
        run_on_model(
            contestants or [], on_model, prompts, tokens, seeds, out, confirm,
            [name for name, value in others.items() if value], json, text or [], field, keep,
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
    lr: Annotated[
        float | None, typer.Option(help="Peak learning rate. Default: 3e-3, or what suits the adapter.")
    ] = None,
    optimizer: Annotated[str, typer.Option(help="Such as adamw, muon, 'soap(every=20)'.")] = "adamw",
    feed_forward: FeedForwardOption = "swiglu",
    seed: Annotated[int, typer.Option(help="Of the initialisation and the data order.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run, bit for bit.")] = False,
    parallel: Annotated[
        str, typer.Option(help="Under torchrun: ddp, fsdp for a model that is cut up, sequence for windows that are.")
    ] = "ddp",
    tokenizer: Annotated[
        str | None, typer.Option(help="Read a model's tokens instead of bytes: its folder, or smollm2.")
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="What is asked: causal (usual), prefix_lm, span_corruption, 'ul2(scale=4)'.")
    ] = None,
    adapt: Annotated[
        str | None, typer.Option(help="Adapt a given model instead, MIXER being its folder or smollm2: lora, full.")
    ] = None,
) -> None:
    """Train one model on text and save it; on several processes under `torchrun -m paceline train ...`."""
    from paceline.cli.siblings import train_sibling
    from paceline.cli.train import run
    from paceline.lm.siblings import SIBLINGS

    if mixer in SIBLINGS:
        if out or text or tokenizer or params or layers or objective or optimizer != "adamw":
            raise typer.BadParameter(f"{mixer} is a recipe: it takes --resume and no other option.")
        train_sibling(mixer, resume)
        return
    if out is None:
        raise typer.BadParameter(
            f"give a folder for the model, or a recipe: {', '.join(SIBLINGS)}.", param_hint="--out"
        )
    if adapt is not None:
        if tokenizer or params or layers or resume or objective or optimizer != "adamw" or feed_forward != "swiglu":
            raise typer.BadParameter(
                "--adapt takes --text, --field, --tokens, --length, --batch, --lr and --seed alone."
            )
        from paceline.cli.adapting import train

        train(mixer, adapt, out, text or [], field, tokens, length, batch, lr, seed)
        return
    lr = 3e-3 if lr is None else lr
    run(
        mixer, out, text or [], field, tokens, params, layers, length, batch, lr, feed_forward, seed, resume, parallel,
        tokenizer, optimizer, objective,
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


@app.command("select")
def select_command(
    folder: Annotated[str, typer.Argument(help="What is chosen from: a folder, file or glob of text.")],
    target: Annotated[list[str], typer.Option(help="Text like that which the model is for; repeatable.")],
    out: Annotated[Path, typer.Option(help="File for the chosen documents with their scores, .jsonl.")],
    keep: Annotated[float, typer.Option(help="Share of the documents to keep.")] = 0.1,
    by: Annotated[
        str, typer.Option(help="color_filter, or 'random_selection(seed=1)' to compare with.")
    ] = "color_filter",
    prior: Annotated[str | None, typer.Option(help="A model of text like the pool. Default: one is trained.")] = None,
    conditional: Annotated[
        str | None, typer.Option(help="The prior, tuned on the target. Default: it is tuned.")
    ] = None,
    field: FieldOption = None,
    seed: Annotated[int, typer.Option(help="Of what is trained.")] = 0,
) -> None:
    """Choose from a pool of text the documents that teach a model most about a target."""
    from paceline.cli.select import run

    run(folder, target, keep, out, prior, conditional, field, seed, by)


@app.command("infill")
def infill_command(
    model: Annotated[str, typer.Argument(help="Folder of a model trained with --objective ul2.")],
    left: Annotated[str, typer.Option(help="Text before the gap.")] = "",
    right: Annotated[str, typer.Option(help="Text behind it.")] = "",
    tokens: Annotated[int, typer.Option(help="At most so many bytes between.")] = 64,
    mode: Annotated[str, typer.Option(help="R for a short gap, X for a long one.")] = "R",
) -> None:
    """Fill the gap between two texts."""
    from paceline.cli.infill import run

    run(model, left, right, tokens, mode)


@app.command("evaluate")
def evaluate_command(
    model: Annotated[str, typer.Argument(help="Folder of a model, or smollm2.")],
    how: Annotated[str, typer.Option("--with", help="latent_list, mrcr, idk, or 'latent_list(operations=4)'.")] = (
        "latent_list"
    ),
    lengths: Annotated[str, typer.Option(help="Tokens of a prompt, by commas.")] = "512,1024,2048",
    items: Annotated[int, typer.Option(help="Questions at each length.")] = 16,
    written: Annotated[bool, typer.Option("--written", help="Let it write answers, where it else picks one.")] = False,
    picture: Annotated[Path | None, typer.Option(help="File for a drawing of the scores, .svg.")] = None,
    seed: Annotated[int, typer.Option(help="Of the questions.")] = 0,
    json: JsonOption = False,
) -> None:
    """Tell how far a model's long context reaches: questions whose answers hide in ever more text."""
    from paceline.cli.evaluate import run

    run(model, how, lengths, items, written, picture, json, seed)


@app.command("align")
def align_command(
    model: Annotated[str, typer.Argument(help="Folder of a model, or smollm2.")],
    out: Annotated[Path, typer.Option(help="Folder for the aligned model.")],
    how: Annotated[str, typer.Option("--with", help="apa, ppo, awr, dpo, 'best_of_n(n=8)'.")] = "apa",
    reward: Annotated[
        str | None,
        typer.Option(help="FILE.py:FUNCTION; it takes prompts and texts and gives a number for each."),
    ] = None,
    preferences: Annotated[Path | None, typer.Option(help="For dpo: .jsonl of prompt, chosen, rejected.")] = None,
    prompts: Annotated[Path | None, typer.Option(help="Texts apart by empty lines, or .jsonl.")] = None,
    rounds: Annotated[int, typer.Option(help="Of writing and learning.")] = 12,
    texts: Annotated[int, typer.Option(help="Written in a round.")] = 64,
    tokens: Annotated[int, typer.Option(help="Of a text, at most.")] = 48,
    lr: Annotated[float, typer.Option(help="Learning rate.")] = 1e-4,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
) -> None:
    """Align a model with a reward that you wrote, or with preferences, near the model as it was."""
    from paceline.align._trainer import Plan
    from paceline.cli.align import run

    run(model, how, reward, preferences, prompts, out, Plan(rounds, texts, tokens, lr=lr), seed)


@app.command("plan")
def plan_command(
    length: Annotated[int, typer.Option(help="Tokens of a sequence.")] = 1_048_576,
    devices: Annotated[list[int] | None, typer.Option(help="Processes; repeatable. Default: 64, 256, 1024.")] = None,
    layers: Annotated[int, typer.Option(help="Layers, all alike.")] = 16,
    heads: Annotated[int, typer.Option(help="Heads of a layer.")] = 16,
    width: Annotated[int, typer.Option(help="Width of a head.")] = 128,
    kv_heads: Annotated[int, typer.Option(help="Heads of keys and values in softmax attention; 0: as many.")] = 0,
    batch: Annotated[int, typer.Option(help="Sequences.")] = 1,
    element: Annotated[int, typer.Option(help="Bytes of a number.")] = 2,
    flops: Annotated[
        float | None, typer.Option(help="Operations a second of a device. Default: measured here.")
    ] = None,
    bandwidth: Annotated[float | None, typer.Option(help="Bytes a second between two. Default: measured here.")] = None,
    latency: Annotated[float | None, typer.Option(help="Seconds of an empty message. Default: measured here.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds of an empty step of a collective.")] = None,
    json: JsonOption = False,
) -> None:
    """Predict what dividing long sequences among many devices would cost, before the run."""
    from paceline.cli.plan import run

    run(
        length, devices or [64, 256, 1024], layers, heads, width, kv_heads, batch, element, flops, bandwidth, latency,
        hop, json,
    )  # fmt: skip


@app.command("prompt")
def prompt_command(
    pipeline: Annotated[str, typer.Argument(help="A method of the family prompt, or the JSON file of a graph.")],
    on_model: Annotated[str, typer.Option("--on-model", help="Folder, smollm2, or http://HOST/v1#NAME.")] = "smollm2",
    inputs: Annotated[list[str] | None, typer.Option("--input", help="NAME=TEXT or NAME=@FILE; repeatable.")] = None,
    calls: Annotated[int | None, typer.Option(help="Most calls of the model.")] = None,
    tokens: Annotated[int | None, typer.Option(help="Most tokens read and written.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Ask in the form of a chat.")] = False,
    steps: Annotated[bool, typer.Option("--steps", help="Show what was done on the way.")] = False,
    json: JsonOption = False,
) -> None:
    """Run a pipeline around a model, within a budget of calls and tokens."""
    from paceline.cli.prompt import run

    run(pipeline, on_model, inputs or [], calls, tokens, chat, steps, json)
