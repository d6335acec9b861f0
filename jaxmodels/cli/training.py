"""Commands that train: train, sweep, launch, template and verify-resume."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

from jaxmodels.cli.command import CommandLine, Ended, Json, command
from jaxmodels.cli.parsing import flags, take, without
from jaxmodels.commands.launch import LaunchOptions
from jaxmodels.commands.sweep import SweepOptions
from jaxmodels.commands.template import TemplateOptions
from jaxmodels.commands.verify_resume import VerifyOptions
from jaxmodels.console import Console
from jaxmodels.launch.exit_statuses import DONE, FAILED
from jaxmodels.options import DistributedOptions, FolderOptions, Options


@command(
    "train",
    "FILE",
    FolderOptions,
    Options,
    DistributedOptions,
    usage="FILE [--knob VALUE …] [options]",
)
def train(line: CommandLine, console: Console, options: dict[str, Any]) -> Json | Ended:
    """Train an experiment's file, or go on where its run stopped.

    Its knobs are options too: jaxmodels train FILE --help lists them.
    """
    from jaxmodels.cli.results import show_run
    from jaxmodels.commands.train import train
    from jaxmodels.training.failures import Interrupted

    folder = _folder(line, options)
    console.say(f"{line.file.path} → {folder}", "bold")
    try:
        result = train(line.file, console=console, **{**options, "folder": str(folder)}, **line.knobs)
    except Interrupted as stop:
        console.say(f"saved at step {stop.step:,} in {folder}; the same command goes on from there", "bold")
        return Ended({"folder": str(folder), "exit": str(stop), "step": stop.step}, stop.exit_status)
    if not console.muted:  # only the first of several processes writes the rest
        show_run(line.file, folder, result, line.words, console)
    return {"folder": str(folder), **result.summary}


def _folder(line: CommandLine, options: dict[str, Any]) -> Path:
    """The run's folder: --folder, else the one named after the file and its knobs."""
    from jaxmodels.runs.experiment_file import run_name

    return Path(options["folder"] or Path("runs") / run_name(line.file, line.file.config(**line.knobs)))


def _simulate_devices(argv: list[str]) -> list[str]:
    """Lets members train at the same time on CPUs; before the experiment's file imports JAX."""
    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 8)))
    return argv


@command(
    "sweep",
    "FILE",
    SweepOptions,
    usage="FILE --knob V1,V2,… [options]",
    swept=True,
    prepare=_simulate_devices,
)
def sweep(line: CommandLine, console: Console, options: dict[str, Any]) -> Json | Ended:
    """Train many settings together, and compare them.

    Each knob takes several values, as in --lr 1e-4,3e-4 --seed 0..7.
    """
    import jax

    from jaxmodels.cli.results import show_sweep
    from jaxmodels.commands.sweep import sweep
    from jaxmodels.sweeps.lockstep import Stopped

    member = options.pop("take")
    if line.file is None:
        return _take(line.operands[0], member, options["folder"])
    if options["on"]:
        jax.config.update("jax_platforms", "cpu")  # leaves the accelerators to the jobs
    how = Options(precision=options.pop("precision"), accumulate=options.pop("accumulate"))
    try:
        table = sweep(line.file, options=how, console=console, **options, **line.knobs)
    except Stopped as stop:
        saved = f"saved at step {stop.step:,}" if stop.step else "saved"
        console.say(f"{saved}; the same command goes on from there", "bold")
        return Ended(None, stop.exit_status)
    show_sweep(table, console)
    return Ended(table, FAILED if table["failed"] else DONE)


def _take(sweep: str, member: str, folder: str) -> Json:
    """Makes a run's folder of a sweep's member."""
    from jaxmodels.sweeps.extract import extract_member

    if not member:
        raise ValueError(
            f"{sweep}: got a folder without --take; expected an experiment's file to sweep. Give the file, "
            "or --take MEMBER to take a member out of a sweep's folder"
        )
    run = extract_member(sweep, member, folder or Path("runs") / member)
    train = shlex.join(["jaxmodels", "train", str(run / "experiment.py"), "--folder", str(run)])
    print(f"{run}: go on with {train}, and the same knobs")
    return None


def _own_options_last(argv: list[str]) -> list[str]:
    """The options that precede the file behind it."""
    words, own = list(argv), flags(LaunchOptions)
    for _ in range(len(words)):
        if words[0].partition("=")[0] in own:
            count = 1 if "=" in words[0] else 2
            words = [*words[count:], *words[:count]]
    return words


@command(
    "launch",
    "FILE",
    LaunchOptions,
    FolderOptions,
    Options,
    usage="FILE --processes N …",
    prepare=_own_options_last,
)
def launch(line: CommandLine, console: Console, options: dict[str, Any]) -> Ended:
    """The same in N processes on this computer.

    An experiment's file is trained; its knobs and train's options are options too.
    """
    from jaxmodels.commands.launch import launch

    words = [line.operands[0], *without(line.words, flags(LaunchOptions))]
    own = take(options, LaunchOptions)
    return Ended(None, launch(words, _folder(line, options), console=console, **own))


@command(
    "template",
    "slurm|jobset|tpu FILE",
    TemplateOptions,
    usage="slurm|jobset|tpu FILE …",
    passes_on=True,
    output=False,
)
def template(line: CommandLine, console: Console, options: dict[str, Any]) -> None:
    """A script that trains it on a cluster.

    The words after -- are train's options and the file's knobs.
    """
    from jaxmodels.commands.template import template

    kind, file = line.operands
    passed_on = line.words[line.words.index("--") + 1 :] if "--" in line.words else []
    print(template(kind, file, passed_on, **options), end="")


@command("verify-resume", "FILE", VerifyOptions, usage="FILE [--knob VALUE …]")
def verify_resume(line: CommandLine, console: Console, options: dict[str, Any]) -> Ended:
    """Prove that an experiment survives kill -9, bit for bit.

    The experiment runs twice, once killed several times, and every array of every checkpoint is compared.
    """
    from jaxmodels.commands.verify_resume import verify_resume

    outcome = verify_resume(line.file, console=console, **options, **line.knobs)
    console.say(outcome.text, "bold green" if outcome.passed else "bold red")
    return Ended(outcome._asdict(), DONE if outcome.passed else FAILED)
