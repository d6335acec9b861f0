"""Commands for what comes before training: plan, find-rate, find-batch, list and doctor."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from jaxmodels.cli.command import CommandLine, Ended, Json, command
from jaxmodels.cli.parsing import flags, take, without
from jaxmodels.commands.doctor import DoctorOptions
from jaxmodels.commands.find_batch import FindBatchOptions
from jaxmodels.commands.find_rate import FindRateOptions
from jaxmodels.commands.list import ListOptions
from jaxmodels.commands.plan import PlanOptions
from jaxmodels.console import Console
from jaxmodels.launch.exit_statuses import DONE, FAILED
from jaxmodels.options import Options, OutputOptions, TrialOptions


@command("plan", "FILE", PlanOptions, usage="FILE --on v5p-512 [options]", reads=True)
def plan(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Memory, speed and cost of training on a machine that is not here.

    The knobs of the experiment's file are options too.
    """
    from jaxmodels.commands.plan import plan
    from jaxmodels.planning import show

    planned = plan(line.file, console=console, **options, **line.knobs)
    show.show(planned, console)
    return planned


@command("find-rate", "FILE", FindRateOptions, TrialOptions)
def find_rate(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """The loss as the learning rate rises: which one to begin with.

    Some steps are trained at a rate that rises; the file's knobs are options too.
    """
    from jaxmodels.analysis import rate_curve
    from jaxmodels.commands.find_rate import find_rate, write
    from jaxmodels.runs.experiment_file import run_name

    path = line.operands[0]
    trial = Options(**take(options, TrialOptions))
    name = f"find-rate-{run_name(line.file, line.file.config(**line.knobs))}"
    folder = Path(options.pop("folder") or Path("runs") / name)
    curve = find_rate(line.file, console=console, options=trial, **options, **line.knobs)
    written = write(path, curve, folder)
    rate_curve.show(path, curve, console)
    knob = next((name for name in ("lr", "learning_rate", "rate") if name in line.knobs), "")
    if knob and curve["steepest"] is not None:
        train = _train_command(line, FindRateOptions, knob, f"{curve['steepest']:.2g}")
        console.say(f"\n  begin with   {train}", "bold")
    console.say(f"  the curve    {written}", "dim")
    return {"file": path, **curve}


def _train_command(line: CommandLine, own: type, knob: str, value: str) -> str:
    """The command that trains with this line's knobs and shared options, and with the knob at the value."""
    spelt = [f"--{knob}", f"--{knob.replace('_', '-')}"]
    words = [word for word in line.words if word not in flags(OutputOptions)]
    kept = without(words, [*flags(own), *spelt])
    return shlex.join(["jaxmodels", "train", line.operands[0], *kept, spelt[1], value])


@command("find-batch", "FILE", FindBatchOptions, TrialOptions)
def find_batch(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """The largest batch that fits the device.

    Steps of several batches are compiled and compared by their memory; the file's knobs are options too.
    """
    from jaxmodels.analysis.memory import in_bytes
    from jaxmodels.commands.find_batch import find_batch

    trial = Options(**take(options, TrialOptions))
    found = find_batch(line.file, console=console, options=trial, **options, **line.knobs)
    size, limit = in_bytes(found["bytes"]), in_bytes(found["limit"])
    console.say(f"\n{found['batch']:,} fits: {size} of {limit}, and two steps ran with it", "bold")
    if found["batch"] > found["examples"]:
        text = f"a pass over the data has no more than {found['examples']:,}: larger batches repeat examples"
        console.say(text, "yellow")
    batch = min(found["batch"], found["examples"])
    console.say(f"  {_train_command(line, FindBatchOptions, options['knob'], str(batch))}")
    return {"file": line.operands[0], **found}


@command(
    "list",
    "[FOLDER|FAMILY…]",
    ListOptions,
    usage="[FOLDER]",
    also={"--models [FAMILY]": "models, their parameters, and whose weights they read"},
    reads=True,
)
def list_experiments(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Experiments, the results that they state, and their last runs.

    The experiments' files of a folder, by default of the folder experiments; or the library's models.
    """
    from jaxmodels.commands.list import list_experiments, show, show_models

    if options["models"]:
        from jaxmodels.convert.catalog import models

        return list(show_models((row._asdict() for row in models(line.operands)), console))
    experiments = []
    for folder in line.operands or ["experiments"]:
        experiments += list_experiments(folder, runs=options["runs"])
    show(experiments, console)
    return experiments


@command("doctor", "", DoctorOptions)
def doctor(line: CommandLine, console: Console, options: dict[str, Any]) -> Ended:
    """Devices, versions, what works and how fast."""
    from jaxmodels.commands.doctor import doctor, show

    with console.busy("measuring"):
        found = doctor(speed=options["speed"] == "on", folder=options["folder"])
    show(found, console)
    return Ended(found, FAILED if found["error"] else DONE)
