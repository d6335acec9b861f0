"""Commands that train: each takes the words after its name and gives the exit status."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any

from jaxmodels.cli.parsing import knobs_of, parse, positional, without
from jaxmodels.launch import cluster
from jaxmodels.launch.exit_statuses import FAILED


def train(argv: list[str]) -> int:
    """jaxmodels train."""
    from jaxmodels.options import DistributedOptions, FolderOptions, Options, OutputOptions

    parts = {
        "running": Options,
        "place": FolderOptions,
        "joining": DistributedOptions,
        "printing": OutputOptions,
    }
    about = "Train an experiment's file. Its knobs are options too: jaxmodels train FILE --help lists them."
    path, rest = positional("train", argv, "FILE", parts, about)

    from jaxmodels.commands.train import train
    from jaxmodels.console import Console
    from jaxmodels.parallel import processes
    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.metrics_file import finite
    from jaxmodels.training import runner

    if not {"-h", "--help"} & {*rest}:
        processes.join(cluster.find(rest, os.environ))  # before the file is run, which may use a device
    file, got, knobs = knobs_of("train", path, rest, parts)
    printing = got["printing"]
    console = Console(quiet=printing.quiet, json=printing.json, muted=not processes.first())
    place = got["place"]
    folder = Path(place.folder or Path("runs") / experiment_file.run_name(file, file.config(**knobs)))
    console.say(f"{file.path} → {folder}", "bold")
    try:
        result = train(
            file, console=console, **vars(got["running"]), **{**vars(place), "folder": str(folder)}, **knobs
        )
    except runner.Interrupted as stop:
        console.say(f"saved at step {stop.step:,} in {folder}; the same command goes on from there", "bold")
        if printing.json and processes.first():
            print(json.dumps({"folder": str(folder), "exit": str(stop), "step": stop.step}))
        return stop.exit_status
    if not processes.first():
        return 0
    _report(console, file, folder, result, rest)
    if printing.json:
        print(json.dumps(finite({"folder": str(folder), **result.summary})))
    return 0


def _report(console: Any, file: Any, folder: Path, result: Any, rest: list[str]) -> None:
    """What a person wants to know at the end."""
    from jaxmodels.commands.generate import sample
    from jaxmodels.console import duration, number
    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.files import write_text
    from jaxmodels.runs.knobs import read_knobs
    from jaxmodels.training.profile import look

    summary = result.summary
    names = list(result.metrics)
    if names:
        baselines = summary["baselines"]
        columns = ["", "this run", *baselines]
        rows = [
            [
                name,
                number(result.metrics[name]),
                *(number(b[name]) if name in b else "" for b in baselines.values()),
            ]
            for name in names
        ]
        console.say()
        console.table("Result", columns, rows)
    facts = [f"{summary['steps']:,} steps"]
    if summary["examples_per_s"]:
        facts += [f"{summary['examples_per_s']:,.0f} examples/s", f"{duration(summary['wall_s'])} in all"]
        facts += [f"{summary['compile_s']:.0f} s of it compiling"]
    if stopped := summary.get("stopped"):
        facts[0] += f", stopped early: {stopped['why']}"
    if summary["skipped"]:
        facts += [f"{summary['skipped']} batches skipped as not finite"]
    console.say("\n" + ", ".join(facts))
    if in_company():  # the parameters may lie on all of them
        console.say(f"\n{folder}", "bold")
        console.say("  go on    the same command, given to all processes")
        console.say(f"  evaluate {shlex.join(['jaxmodels', 'evaluate', str(folder)])}")
        return
    config = experiment_file.make_config(file, read_knobs(folder).knobs)
    experiment = file.build(config)
    if experiment.decoder is not None and not console.quiet:
        [wrote] = sample(experiment, result.state, tokens=300)
        write_text(folder / "sample.txt", wrote.with_prompt)
        console.say(f"\nA sample after {wrote.prompt!r}", "bold")
        console.say(wrote.with_prompt)
    console.say(f"\n{folder}", "bold")
    again = [word for word in rest if word not in ("--fresh", "--force")]
    console.say(f"  go on    {shlex.join(['jaxmodels', 'train', str(file.path), *again])}")
    console.say(f"  evaluate {shlex.join(['jaxmodels', 'evaluate', str(folder)])}")
    console.say(f"  look     {shlex.join(['jaxmodels', 'report', str(folder)])}")
    for way in look(folder):
        console.say(f"  trace    {way}")
    if experiment.decoder is not None:
        words = ["jaxmodels", "generate", str(folder), "--prompt", experiment.decoder.prompt]
        console.say(f"  sample   {shlex.join(words)}")


def launch(argv: list[str]) -> int:
    """jaxmodels launch."""
    import dataclasses

    from jaxmodels.commands.launch import LaunchOptions
    from jaxmodels.options import FolderOptions, Options, OutputOptions

    parts = {
        "launching": LaunchOptions,
        "running": Options,
        "place": FolderOptions,
        "printing": OutputOptions,
    }
    about = "Train an experiment's file in several processes on this computer; knobs and train's options are options too."
    words, ours = (
        list(argv),
        [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(LaunchOptions)],
    )
    for _ in range(len(words)):  # what comes before the file
        if words[0].partition("=")[0] in ours:
            at = 1 if "=" in words[0] else 2
            words = [*words[at:], *words[:at]]
    path, rest = positional("launch", words, "FILE", parts, about)

    from jaxmodels.commands.launch import launch
    from jaxmodels.console import Console
    from jaxmodels.runs import experiment_file

    file, got, knobs = knobs_of("launch", path, rest, parts)
    folder = got["place"].folder or str(Path("runs") / experiment_file.run_name(file, file.config(**knobs)))
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    return launch([path, *without(rest, ours)], Path(folder), console=console, **vars(got["launching"]))


def template(argv: list[str]) -> int:
    """jaxmodels template."""
    from jaxmodels.commands.template import TemplateOptions

    parts: dict[str, type] = {"templating": TemplateOptions}
    about = "Print a script that trains an experiment's file on a cluster; what follows -- are train's options and knobs."
    kind, rest = positional("template", argv, "slurm|jobset|tpu", parts, about)
    path, rest = positional(f"template {kind}", rest, "FILE", parts, about)
    at = rest.index("--") if "--" in rest else len(rest)
    got = parse(f"template {kind}", rest[:at], path, parts, about=about)["templating"]

    from jaxmodels.commands.template import template

    print(template(kind, path, rest[at + 1 :], **vars(got)), end="")
    return 0


def sweep(argv: list[str]) -> int:
    """jaxmodels sweep."""
    from jaxmodels.options import OutputOptions, SweepOptions

    parts = {"sweeping": SweepOptions, "printing": OutputOptions}
    about = "Train many settings of an experiment's knobs together, as in --lr 1e-4,3e-4 --seed 0..7."
    path, rest = positional("sweep", argv, "FILE", parts, about)

    os.environ.setdefault(
        "JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 8))
    )  # members at the same time, on CPUs
    from jaxmodels.commands import sweep_table

    return sweep_table.main(path, rest, lambda words: parse("sweep", words, path, parts, about=about))


def verify(argv: list[str]) -> int:
    """jaxmodels verify-resume."""
    from jaxmodels.commands.verify_resume import VerifyOptions
    from jaxmodels.options import Options, OutputOptions

    parts = {"verifying": VerifyOptions, "running": Options, "printing": OutputOptions}
    about = "Run an experiment twice, once killed again and again, and compare every array of every checkpoint, bit for bit."
    path, rest = positional("verify-resume", argv, "FILE", parts, about)

    from jaxmodels.commands import verify_resume
    from jaxmodels.console import Console

    file, got, knobs = knobs_of(
        "verify-resume", path, rest, {k: v for k, v in parts.items() if k != "running"}
    )
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    outcome = verify_resume.verify_resume(file, console=console, **vars(got["verifying"]), **knobs)
    console.say(outcome.text, "bold green" if outcome.passed else "bold red")
    if got["printing"].json:
        print(json.dumps(outcome._asdict()))
    return 0 if outcome.passed else FAILED


def in_company() -> bool:
    """Whether this process trains with others; it joined them by a module that is then there."""
    processes = sys.modules.get("jaxmodels.parallel.processes")
    return processes is not None and processes.count() > 1
