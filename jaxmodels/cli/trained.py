"""Commands for runs, weights and texts, from evaluate to export."""

from __future__ import annotations

import contextlib
import sys
from typing import Any

from jaxmodels.cli.command import CommandLine, Ended, Json, command
from jaxmodels.cli.parsing import given, leading
from jaxmodels.commands.convert import ConvertOptions
from jaxmodels.commands.evaluate import EvaluateOptions, WeightsOptions
from jaxmodels.commands.export import ExportOptions
from jaxmodels.commands.generate import GenerateOptions
from jaxmodels.commands.predict import PredictOptions
from jaxmodels.commands.recommend import RecommendOptions
from jaxmodels.commands.report import ReportOptions
from jaxmodels.commands.tokenize import TokenizeOptions
from jaxmodels.commands.watch import WatchOptions
from jaxmodels.console import Console, number, shown
from jaxmodels.launch.exit_statuses import DONE, FAILED
from jaxmodels.options import CheckpointOptions, DistributedOptions

CODE = (
    "A run's folder is code: its experiment.py is executed, so give only one made by you, or by somebody "
    "whose code you would execute. A folder of weights is never executed, and one that looks like both is "
    "refused."
)


@command(
    "evaluate",
    "RUN",
    EvaluateOptions,
    WeightsOptions,
    CheckpointOptions,
    DistributedOptions,
    usage="RUN [--data PATH]",
    also={"FILE|RUN --weights PATH": "evaluate weights from elsewhere on an experiment's data"},
    file_options=(WeightsOptions, CheckpointOptions, DistributedOptions),
    note=CODE,
    reads=True,
)
def evaluate(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Evaluate a run's checkpoint, also on other data.

    Or weights from elsewhere, with the experiment of a run or of a file, whose knobs are options too; or a
    language model on given texts.
    """
    from jaxmodels.commands.evaluate import evaluate

    run = line.operands[0]
    metrics = evaluate(run, knobs=line.knobs, console=console, **options)
    console.table(run, ["", "value"], [[name, number(value)] for name, value in metrics.items()])
    return {"run": run, "metrics": metrics}


@command(
    "recommend",
    "RUN",
    RecommendOptions,
    CheckpointOptions,
    usage="RUN --user ID [--top 10]",
    note=CODE,
    reads=True,
)
def recommend(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Items that a user has not had, best first, with their scores.

    A user whom the run does not know gets the most frequent items.
    """
    from jaxmodels.commands.recommend import recommend

    found = recommend(line.operands[0], warn=console.warn, **options)
    user = found["user"]
    title = f"for user {user}"
    if found["cold"]:
        title = f"most frequent items, as user {user} has no interactions in the run's training"
    columns = [name for name in ("item", "title", "score") if name in found["items"][0]]
    rows = [
        [number(row[name]) if name == "score" else str(row[name]) for name in columns]
        for row in found["items"]
    ]
    console.table(title, columns, rows)
    return {"run": line.operands[0], **found}


def _long_out(argv: list[str]) -> list[str]:
    return ["--out" if word == "-o" else word for word in argv]


def _repeated_text(argv: list[str]) -> list[str]:
    """--text A --text B as --text A B, and -o as --out."""
    words, texts = [], []
    argv = _long_out(argv)
    while argv:
        word = argv.pop(0)
        if word == "--text":
            before, argv = leading(argv)
            texts += before
        elif word.startswith("--text="):
            texts.append(word.removeprefix("--text="))
        else:
            words.append(word)
    return [*words, "--text", *texts] if texts else words


@command(
    "predict",
    "RUN [INPUT…]",
    PredictOptions,
    CheckpointOptions,
    usage="RUN INPUT… [-o out.csv]",
    also={"RUN --text TEXT …": "predict for texts", "RUN --table FILE --horizon N": "forecast series"},
    note=f"{CODE} --json prints a line of JSON for each input. The exit status is 1 where an input could not "
    "be used; the others are answered.",
    reads=True,
    prepare=_repeated_text,
)
def predict(line: CommandLine, console: Console, options: dict[str, Any]) -> Ended:
    """A model's answers for images, texts, sounds, or rows of tables; INPUT is a file or a folder of them.

    The model is a run's, or one in a folder of weights. Images get drawings too.
    """
    from jaxmodels.cli.answers import show, show_forecast
    from jaxmodels.commands.predict import forecast, goes_to_table, open_model, predictions, row_of

    run, *files = line.operands
    where = {name: options.pop(name) for name in CheckpointOptions.__dataclass_fields__}
    texts, out = options.pop("text"), options.pop("out")
    row = row_of(options.pop("question"), options.pop("context"))
    table, horizon = options.pop("table"), options.pop("horizon")
    with console.busy(f"loading {run}"):
        model = open_model(run, warn=console.warn, **where)
    if table or horizon:
        with console.busy("forecasting"):
            found = forecast(model, table, horizon=horizon, out=out)
        return Ended(show_forecast(console, found), DONE)
    answers = predictions(model, files, texts=texts, rows=row, out=out, **options)
    return Ended(None, FAILED if show(console, answers, out if goes_to_table(out) else "") else DONE)


@command(
    "generate",
    "RUN",
    GenerateOptions,
    CheckpointOptions,
    usage="RUN|FOLDER --prompt TEXT …",
    note=CODE,
    reads=True,
)
def generate(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Generate text with the language model of a run, or of a folder of weights."""
    from jaxmodels.commands.generate import generate

    run, typed = line.operands[0], given(line.words, GenerateOptions)
    unset = {*GenerateOptions.__dataclass_fields__} - typed  # a folder may ask for other values: see generate
    chosen = {name: value for name, value in options.items() if name not in unset}
    streams = not console.json and len(chosen.get("prompt", ())) == 1
    printable = shown if sys.stdout.isatty() else str  # a file gets the model's text as it is

    def show(_: int, text: str) -> None:
        print(printable(text), end="", flush=True)

    texts = generate(run, warn=console.warn, show=show if streams else None, **chosen)
    if streams:
        print()
    elif not console.json:
        print(printable("\n\n".join(text.with_prompt for text in texts)))
    return {"run": run, "texts": [text._asdict() for text in texts]}


@command(
    "report",
    "RUN…",
    ReportOptions,
    usage="RUN…|SWEEP -o report.html",
    note=f"{CODE} --model off executes nothing.",
    reads=True,
    prepare=_long_out,
)
def report(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """One HTML file of a run, of several beside each other, or of a sweep.

    It needs no server.
    """
    from jaxmodels.commands.report import report

    path = report(line.operands, console=console, **options)
    console.say(f"{path}, {path.stat().st_size / 1e6:.1f} MB: open it in a browser", "bold")
    return {"runs": line.operands, "report": str(path)}


@command("watch", "RUN", WatchOptions, usage="RUN|SWEEP", output=False, reads=True)
def watch(line: CommandLine, console: Console, options: dict[str, Any]) -> None:
    """A run's or a sweep's progress, in the terminal, until it ends.

    It is read from the folder, on any computer that sees it; nothing in it is executed. Ctrl-C ends watching.
    """
    from jaxmodels.commands.watch import watch

    with contextlib.suppress(KeyboardInterrupt):
        watch(line.operands[0], **options)


@command("tokenize", "FILES OUT", TokenizeOptions, reads=True)
def tokenize(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Train a tokenizer on texts and write their tokens.

    Or load one, and write the tokens of texts for training.
    """
    from jaxmodels.commands.tokenize import tokenize

    files, out = line.operands
    facts = tokenize(files, out, **options)
    rows = [[name, f"{value:,}" if isinstance(value, int) else str(value)] for name, value in facts.items()]
    console.table(out, ["", ""], rows)
    return {"folder": out, **facts}


@command("convert", "FOLDER OUT", ConvertOptions, usage="FOLDER OUT", reads=True)
def convert(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Check and rewrite a Hugging Face folder, or a file of llama2.c.

    Every tensor is checked, and written as safetensors that transformers loads. A path in .bin is a file of
    llama2.c. With --base, the LoRA adapters of a run become a folder for PEFT; the run's folder is code,
    which is executed.
    """
    from jaxmodels.commands.convert import convert

    folder, out = line.operands
    parameters = convert(folder, out, warn=console.warn, **options)
    console.say(f"{folder} → {out}: {parameters:,} parameters", "bold")
    return {"folder": out, "parameters": parameters}


@command(
    "export",
    "RUN",
    ExportOptions,
    CheckpointOptions,
    usage="RUN|FOLDER -o OUT",
    note=CODE,
    reads=True,
    prepare=_long_out,
)
def export(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Write a model for other programs: StableHLO, ONNX or safetensors.

    The model is a run's, or one in a folder of weights. What is written is loaded again and compared with the
    model before the command says so.
    """
    from jaxmodels.commands.export import export

    run = line.operands[0]
    done = export(run, warn=console.warn, **options)
    size = f"{done.parameters:,} parameters, {done.bytes / 1e6:.1f} MB"
    console.say(f"{run} → {done.file}: {size}", "bold")
    console.say(f"  loaded again, it differs from the model by {done.difference:.1e} of its outputs")
    return {"run": run, **done._asdict()}
