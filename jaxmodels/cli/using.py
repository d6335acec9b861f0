"""Commands for runs, weights and texts that are there: each takes the words after its name and gives the exit status."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from jaxmodels.cli.parsing import given, knobs_of, leading, parse, positional
from jaxmodels.console import shown
from jaxmodels.launch import cluster

CODE = (
    "A run's folder is code: its experiment.py is executed, so give only one that you, or somebody whose code you would "
    "execute, has made. A folder of weights is never executed, and one that looks like both is refused."
)


def evaluate(argv: list[str]) -> int:
    """jaxmodels evaluate."""
    from jaxmodels.commands.evaluate import EvaluateOptions, WeightsOptions, evaluate
    from jaxmodels.options import CheckpointOptions, DistributedOptions, OutputOptions

    anywhere = {
        "importing": WeightsOptions,
        "restoring": CheckpointOptions,
        "joining": DistributedOptions,
        "printing": OutputOptions,
    }
    parts = {"scoring": EvaluateOptions, **anywhere}
    about = (
        "Evaluate a checkpoint of a run with the run's own experiment, or weights from elsewhere with the experiment of a "
        f"run or of a file (whose knobs are then options too), or a language model on given texts. {CODE}"
    )
    run, rest = positional("evaluate", argv, "RUN", parts, about)
    if run.endswith(".py"):
        _, got, knobs = knobs_of("evaluate", run, rest, anywhere)
        what: dict[str, Any] = {"knobs": knobs}
    else:
        got = parse("evaluate", rest, run, parts, about=about)
        what = vars(got["scoring"])

    from jaxmodels.console import Console, number
    from jaxmodels.parallel import processes
    from jaxmodels.runs.metrics_file import finite

    processes.join(cluster.find(rest, os.environ), preemption=False)
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json, muted=not processes.first())
    metrics = evaluate(run, console=console, **what, **vars(got["importing"]), **vars(got["restoring"]))
    console.table(run, ["", "value"], [[name, number(value)] for name, value in metrics.items()])
    if got["printing"].json and processes.first():
        print(json.dumps(finite({"run": run, "metrics": metrics})))
    return 0


def predict(argv: list[str]) -> int:
    """jaxmodels predict."""
    from jaxmodels.commands.predict import PredictOptions, predict
    from jaxmodels.options import CheckpointOptions, OutputOptions

    parts = {"writing": PredictOptions, "restoring": CheckpointOptions, "printing": OutputOptions}
    about = f"What a run's model, or one from elsewhere, says of files, such as pictures; and drawings of it. {CODE}"
    run, rest = positional("predict", argv, "RUN", parts, about)
    files, rest = leading(rest)
    if not files and not {"-h", "--help"} & set(rest):
        positional("predict RUN", rest, "FILES", parts, about)
    got = parse("predict", rest, f"{run} {' '.join(files)}", parts, about=about)

    from jaxmodels.console import Console

    printing = got["printing"]
    console = Console(quiet=printing.quiet, json=printing.json)
    said = predict(run, files, warn=console.warn, **vars(got["writing"]), **vars(got["restoring"]))
    for one in said:
        console.say(one["file"], "bold")
        for name, value in one.items():
            if name == "likeliest":
                value = ", ".join(f"{label} {probability:.1%}" for label, probability in value.items())
            elif name == "probability":
                value = f"{value:.1%}"
            if name != "file":
                console.say(f"  {name:12} {value}")
    if printing.json:
        print(json.dumps({"run": run, "predictions": said}))
    return 0


def generate(argv: list[str]) -> int:
    """jaxmodels generate."""
    from jaxmodels.commands.generate import GenerateOptions, generate
    from jaxmodels.options import CheckpointOptions, OutputOptions

    parts = {"sampling": GenerateOptions, "restoring": CheckpointOptions, "printing": OutputOptions}
    about = f"Let a language model write: a run's, or one in a folder from elsewhere. {CODE}"
    run, rest = positional("generate", argv, "RUN", parts, about)
    got = parse("generate", rest, run, parts, about=about)

    from jaxmodels.console import Console

    printing, chosen = got["printing"], given(rest, GenerateOptions)
    how = {name: value for name, value in vars(got["sampling"]).items() if name in chosen}
    console = Console(quiet=printing.quiet, json=printing.json)
    streams = not printing.json and len(how.get("prompt", ())) == 1

    seen = shown if sys.stdout.isatty() else str  # a file gets the model's text as it is

    def show(_: int, text: str) -> None:
        print(seen(text), end="", flush=True)

    texts = generate(run, warn=console.warn, show=show if streams else None, **vars(got["restoring"]), **how)
    if printing.json:
        print(json.dumps({"run": run, "texts": [text._asdict() for text in texts]}))
    elif streams:
        print()
    else:
        print(seen("\n\n".join(text.with_prompt for text in texts)))
    return 0


def report(argv: list[str]) -> int:
    """jaxmodels report."""
    from jaxmodels.commands.report import ReportOptions
    from jaxmodels.options import OutputOptions

    parts = {"reporting": ReportOptions, "printing": OutputOptions}
    about = f"One HTML file of a run, of several, or of a sweep, that needs no server. {CODE} --model off executes nothing."
    argv = ["--out" if word == "-o" else word for word in argv]
    run, rest = positional("report", argv, "RUN", parts, about)
    runs, rest = leading(rest)
    got = parse("report", rest, " ".join([run, *runs]), parts, about=about)

    from jaxmodels.commands.report import report
    from jaxmodels.console import Console

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    path = report([run, *runs], console=console, **vars(got["reporting"]))
    console.say(f"{path}, {path.stat().st_size / 1e6:.1f} MB: open it in a browser", "bold")
    if got["printing"].json:
        print(json.dumps({"runs": [run, *runs], "report": str(path)}))
    return 0


def watch(argv: list[str]) -> int:
    """jaxmodels watch."""
    from jaxmodels.commands.watch import WatchOptions

    parts: dict[str, type] = {"watching": WatchOptions}
    about = (
        "A run, or a sweep, as it goes on: read from its folder, on any computer that sees it; nothing in it is executed. "
        "Ctrl-C ends the watching."
    )
    run, rest = positional("watch", argv, "RUN", parts, about)
    once = parse("watch", rest, run, parts, about=about)["watching"].once

    import contextlib

    from jaxmodels.commands.watch import watch

    with contextlib.suppress(KeyboardInterrupt):
        watch(run, once=once)
    return 0


def tokenize(argv: list[str]) -> int:
    """jaxmodels tokenize."""
    from jaxmodels.options import OutputOptions, TokenizeOptions

    parts = {"tokenizing": TokenizeOptions, "printing": OutputOptions}
    about = "Train a tokenizer on text files, or load one, and write their tokens for training."
    where, rest = positional("tokenize", argv, "FILES", parts, about)
    out, rest = positional("tokenize FILES", rest, "OUT", parts, about)
    got = parse("tokenize", rest, f"{where} {out}", parts, about=about)

    from jaxmodels.console import Console
    from jaxmodels.data.tokenize import tokenize

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    facts = tokenize(where, out, **vars(got["tokenizing"]))
    console.table(
        out,
        ["", ""],
        [[name, f"{value:,}" if isinstance(value, int) else str(value)] for name, value in facts.items()],
    )
    if got["printing"].json:
        print(json.dumps({"folder": out, **facts}))
    return 0


def convert(argv: list[str]) -> int:
    """jaxmodels convert."""
    from jaxmodels.options import OutputOptions

    parts: dict[str, type] = {"printing": OutputOptions}
    about = (
        "Read a folder of weights, check every tensor, and write it again as safetensors that transformers loads. "
        "A path in .bin is a file of llama2.c."
    )
    folder, rest = positional("convert", argv, "FOLDER", parts, about)
    out, rest = positional("convert FOLDER", rest, "OUT", parts, about)
    got = parse("convert", rest, f"{folder} {out}", parts, about=about)

    from jaxmodels.console import Console
    from jaxmodels.convert.save import convert

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    parameters = convert(folder, out)
    console.say(f"{folder} → {out}: {parameters:,} parameters", "bold")
    if got["printing"].json:
        print(json.dumps({"folder": out, "parameters": parameters}))
    return 0
