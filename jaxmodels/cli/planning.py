"""Commands for what comes before training: each takes the words after its name and gives the exit status."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from jaxmodels.cli.parsing import knobs_of, leading, parse, positional, without
from jaxmodels.launch.exit_statuses import FAILED


def plan(argv: list[str]) -> int:
    """jaxmodels plan."""
    from jaxmodels.commands.plan import PlanOptions
    from jaxmodels.options import OutputOptions

    parts = {"planning": PlanOptions, "printing": OutputOptions}
    about = "What training an experiment's file would take on a machine that is not here; its knobs are options too."
    path, rest = positional("plan", argv, "FILE", parts, about)

    from jaxmodels.commands import plan as command
    from jaxmodels.console import Console
    from jaxmodels.planning import show as report

    file, got, knobs = knobs_of("plan", path, rest, parts)
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    planned = command.plan(file, console=console, **vars(got["planning"]), **knobs)
    report.show(planned, console)
    if got["printing"].json:
        print(json.dumps(planned))
    return 0


def find_rate(argv: list[str]) -> int:
    """jaxmodels find-rate."""
    from jaxmodels.commands.find_rate import FindRateOptions
    from jaxmodels.options import Options, OutputOptions, TrialOptions

    parts: dict[str, type] = {"rising": FindRateOptions, "trying": TrialOptions, "printing": OutputOptions}
    about = (
        "Train some steps at a rate that rises, and show the loss over it; the file's knobs are options too."
    )
    path, rest = positional("find-rate", argv, "FILE", parts, about)
    file, got, knobs = knobs_of("find-rate", path, rest, parts)

    from jaxmodels.analysis.rate_curve import show, write
    from jaxmodels.commands.find_rate import find_rate
    from jaxmodels.console import Console
    from jaxmodels.runs import experiment_file

    console, options = (
        Console(quiet=got["printing"].quiet, json=got["printing"].json),
        Options(**vars(got["trying"])),
    )
    rising = vars(got["rising"])
    name = f"find-rate-{experiment_file.run_name(file, file.config(**knobs))}"
    folder = Path(rising.pop("folder") or Path("runs") / name)
    found = find_rate(file, console=console, options=options, **rising, **knobs)
    written = write(path, found, folder)
    show(path, found, console)
    rate = next((x for x in ("lr", "learning_rate", "rate") if x in knobs), "")
    if rate and found["steepest"] is not None:
        command = _train(path, rest, parts["rising"], rate, f"{found['steepest']:.2g}")
        console.say(f"\n  begin with   {command}", "bold")
    console.say(f"  the curve    {written}", "dim")
    if got["printing"].json:
        print(json.dumps({"file": path, **found}))
    return 0


def _train(path: str, rest: list[str], ours: type, knob: str, value: str) -> str:
    """The command that trains with the words of this one but its own options, and with the knob at the value."""
    import dataclasses

    names = [*(f.name for f in dataclasses.fields(ours)), knob]
    options = [f"--{spelt}" for name in names for spelt in (name, name.replace("_", "-"))]
    kept = without([word for word in rest if word not in ("--json", "--quiet")], options)
    return shlex.join(["jaxmodels", "train", path, *kept, f"--{knob.replace('_', '-')}", value])


def find_batch(argv: list[str]) -> int:
    """jaxmodels find-batch."""
    from jaxmodels.commands.find_batch import FindBatchOptions
    from jaxmodels.options import Options, OutputOptions, TrialOptions

    parts: dict[str, type] = {"filling": FindBatchOptions, "trying": TrialOptions, "printing": OutputOptions}
    about = "Find the largest batch whose training step fits the device; the file's knobs are options too."
    path, rest = positional("find-batch", argv, "FILE", parts, about)
    file, got, knobs = knobs_of("find-batch", path, rest, parts)

    from jaxmodels.analysis.memory import in_bytes
    from jaxmodels.commands.find_batch import find_batch
    from jaxmodels.console import Console

    console, options = (
        Console(quiet=got["printing"].quiet, json=got["printing"].json),
        Options(**vars(got["trying"])),
    )
    found = find_batch(file, console=console, options=options, **vars(got["filling"]), **knobs)
    knob = got["filling"].knob
    size, limit = in_bytes(found["bytes"]), in_bytes(found["limit"])
    console.say(f"\n{found['batch']:,} fits: {size} of {limit}, and two steps were made with it", "bold")
    if found["batch"] > found["examples"]:
        console.say(
            f"a pass over the data has no more than {found['examples']:,}: larger batches repeat examples",
            "yellow",
        )
    console.say(
        f"  {_train(path, rest, parts['filling'], knob, str(min(found['batch'], found['examples'])))}"
    )
    if got["printing"].json:
        print(json.dumps({"file": path, **found}))
    return 0


def list_experiments(argv: list[str]) -> int:
    """jaxmodels list."""
    from jaxmodels.commands.list import ListOptions
    from jaxmodels.options import OutputOptions

    parts: dict[str, type] = {"listing": ListOptions, "printing": OutputOptions}
    folders, rest = leading(argv)
    about = "The experiments' files of a folder, by default of experiments; or the library's models."
    got = parse("list", rest, "[FOLDER|FAMILY]", parts, about=about)

    from jaxmodels.commands.list import list_experiments, show, show_models
    from jaxmodels.console import Console

    if got["listing"].models:
        from jaxmodels.convert.catalog import models

        console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
        lines = list(show_models((line._asdict() for line in models(folders)), console))
        if got["printing"].json:
            print(json.dumps(lines))
        return 0
    found = [
        of
        for folder in folders or ["experiments"]
        for of in list_experiments(folder, runs=got["listing"].runs)
    ]
    show(found, Console(quiet=got["printing"].quiet, json=got["printing"].json))
    if got["printing"].json:
        print(json.dumps(found))
    return 0


def doctor(argv: list[str]) -> int:
    """jaxmodels doctor."""
    from jaxmodels.commands.doctor import DoctorOptions
    from jaxmodels.options import OutputOptions

    parts: dict[str, type] = {"looking": DoctorOptions, "printing": OutputOptions}
    got = parse("doctor", argv, "", parts, about="What this computer has, what works on it, and how fast.")

    from jaxmodels.commands.doctor import doctor, show
    from jaxmodels.console import Console

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    with console.busy("measuring"):
        found = doctor(speed=got["looking"].speed == "on", folder=got["looking"].folder)
    show(found, console)
    if got["printing"].json:
        print(json.dumps(found))
    return FAILED if found["error"] else 0
