"""jaxmodels sweep: many settings of an experiment's knobs, trained together and compared.

Every member can be taken out and trained further. The files of a sweep:

SWEEP/experiment.py, knobs.json     as in a run's folder; knobs.json without the knobs that are swept
SWEEP/members/NAME/                 a member's log and result, what it learned, and fingerprints of its data
SWEEP/together/N/                   checkpoints of members that train in one loop, and its job's log
SWEEP/study.journal, study.json     trials of --search tpe, and those that are this sweep's
SWEEP/submitit/                     files that submitit writes for jobs: pickles
SWEEP/result.json                   the table
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jaxmodels.console import Console
from jaxmodels.options import Options

if TYPE_CHECKING:
    from jaxmodels.experiment import Experiment
    from jaxmodels.runs.definition import RunDefinition
    from jaxmodels.runs.experiment_file import File
    from jaxmodels.sweeps.member_files import Member


@dataclass(frozen=True, kw_only=True)
class SweepOptions:
    """Which settings are trained, and what they are compared by."""

    search: Literal["grid", "random", "halton", "tpe", "halving", "hyperband", "pbt"] = "grid"
    """grid trains all combinations of the values; the others train --trials of them.
    They are drawn at random (random), evenly by Halton's sequence (halton), or from earlier results (tpe).
    halving and hyperband stop the worse members early.
    With pbt the worst members take over the best ones' states, with changed knobs."""
    trials: int = 0
    """How many settings are drawn; each is trained with every seed. For tpe: all of its study."""
    draws: int = 0
    """Seed of the drawn settings."""
    study: str = ""
    """The journal of tpe's study, which several computers may share; by default in the sweep's folder."""
    every: int = 0
    """Steps between generations of pbt; 0 is a tenth of all."""
    metric: str = ""
    """The metric that members are compared by, as in test/accuracy.
    By default the experiment's best, else the first accuracy."""
    goal: Literal["", "max", "min"] = ""
    """Whether a high or a low metric is better; by default its name decides."""
    on: Literal["", "local", "slurm", "ray"] = ""
    """Train in jobs that share the folder: local processes, Slurm's (by submitit), or a Ray cluster's."""
    workers: int = 2
    """Jobs that the members are split into."""
    resources: str = ""
    """What each job asks for.
    For slurm what submitit knows, as in partition=gpu,time=60,gpus_per_node=1.
    For ray num_cpus, num_gpus and memory; for local gpus_per_node."""
    folder: str = ""
    """The sweep's folder; by default runs/sweep-NAME."""
    take: str = ""
    """Make a run's folder of this member, at --folder.
    FILE is then the sweep's folder, whose experiment.py is executed."""
    precision: Literal["float32", "bfloat16"] = Options.precision
    """Of parameters and activations inside the model, as for train."""
    accumulate: int = Options.accumulate
    """Micro-batches that a batch is split into, as for train."""


def sweep(
    experiment: str | Path | File,
    *,
    folder: str | Path = SweepOptions.folder,
    search: str = SweepOptions.search,
    trials: int = SweepOptions.trials,
    draws: int = SweepOptions.draws,
    study: str | Path = SweepOptions.study,
    every: int = SweepOptions.every,
    metric: str = SweepOptions.metric,
    goal: str = SweepOptions.goal,
    on: str = SweepOptions.on,
    workers: int = SweepOptions.workers,
    resources: str = SweepOptions.resources,
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """Trains every setting of the knobs and compares them.

    Goes on where it stopped, and trains only what is new.

    Returns {"members": [...], "settings": [...], "verdict": ...}.

    knobs: the file's. A list or a space.Range is swept, and so is a string such as "1e-4,3e-4" or "0..7"
        where the knob is not a string; anything else is fixed.
    search: "grid" takes all combinations; "random" and "halton" draw `trials` of them; "halving", "hyperband"
        and "pbt" take all, or draw with trials, and stop or change members before their end; "tpe" asks
        Optuna for `trials` settings in rounds.
    draws: seed of the drawn settings.
    study: tpe's journal, by default in the folder; several sweeps may share it.
    every: steps between generations of pbt.
    metric: by default the experiment's best, else the first accuracy, else the first metric.
    on: "local", "slurm" or "ray" trains in `workers` jobs there, each of which asks for resources such as
        "partition=gpu,time=60".
    """
    from jaxmodels.parallel.mesh import make_mesh
    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.definition import RunDefinition
    from jaxmodels.runs.files import write_text
    from jaxmodels.runs.metrics_file import finite
    from jaxmodels.sweeps import executors, selection, space, tpe
    from jaxmodels.sweeps.halving import brackets, halve
    from jaxmodels.sweeps.member_files import Member
    from jaxmodels.sweeps.members import Setup, remembered, result_of, train_members
    from jaxmodels.sweeps.pbt import evolve
    from jaxmodels.sweeps.statistics import goal_of
    from jaxmodels.sweeps.summary import default_metric, summary
    from jaxmodels.training.check import check

    options, console = options or Options(), console or Console(quiet=True)
    file = experiment_file.load(experiment)
    fixed, values = selection.split_knobs(file, knobs)
    base = experiment_file.make_config(file, fixed)
    if on and search in selection.EARLY:
        raise ValueError(
            f"sweep: got --on {on} with --search {search}, which compares all members while they train; "
            f"expected them to train here. Leave out --on {on}"
        )
    if workers < 1:
        raise ValueError(f"sweep: got --workers {workers}; expected 1 or more. Change it")
    path = Path(folder or Path("runs") / f"sweep-{experiment_file.run_name(file, base)}")

    def make_member(setting: dict[str, Any]) -> Member:
        config = experiment_file.make_config(file, {**fixed, **setting})
        return remembered(file, path, Member(space.name_of(setting), setting, config))

    members = [make_member(setting) for setting in selection.choose(values, search, trials, draws)]
    kept = {name: value for name, value in experiment_file.knobs_of(base).items() if name not in values}
    same_results = {"precision": options.precision, "accumulate": options.accumulate}
    lost: dict[str, str] = {}  # why, by member
    with contextlib.ExitStack() as stack:
        # First of all, since Ray starts processes by a fork, which JAX's threads do not survive.
        executor = stack.enter_context(executors.open_executor(on, path, resources)) if on else None
        first, mesh = file.build(members[0].config), make_mesh("")
        check(first, options)
        _check_ends(first)
        identity = RunDefinition(file.source, kept, same_results, file.beside)
        stack.enter_context(_open_folder(path, identity, file, console))
        executors.check_free(path, on)
        begun = time.perf_counter()
        done = {m.name for m in members if result_of(path / "members" / m.name)}
        left = [m for m in members if m.name not in done]
        if search != "tpe":
            before = f", {len(done)} of them done before" if done else ""
            console.say(f"{len(members)} members{before}", "bold")
        seed = _seed(file, values, members)
        setup = Setup(file, path, options, mesh, console)
        searched = metric or (first.best or ("test/accuracy",))[0]
        searched_goal = goal or goal_of(searched)

        def train(members: list[Member]) -> float:
            """Trains members; seconds of compiling."""
            if executor is None:
                return train_members(setup, members)
            lost.update(executors.train(setup, members, executor, workers))
            return math.nan  # the jobs compile

        if search == "tpe":
            asked = selection.tpe_search(values, trials, searched, searched_goal, kept)
            journal = Path(study or path / "study.journal")
            members, compile_s = tpe.search(setup, asked, journal, draws, make_member, train)
            seed = _seed(file, values, members)
        elif search == "halving":
            compile_s = halve(setup, members, seed, searched, searched_goal)
        elif search == "hyperband":
            compile_s = 0.0
            for bracket, rounds in brackets(members, seed):
                compile_s += halve(setup, bracket, seed, searched, searched_goal, rounds)
        elif search == "pbt":
            compile_s = evolve(setup, left, searched, searched_goal, every, draws)
        else:
            compile_s = train(left) if left else 0.0
        rows = []
        for m in members:
            absent = {"exit": f"failed: {lost[m.name]}" if m.name in lost else "absent", "metrics": {}}
            result = result_of(path / "members" / m.name) or absent
            rows.append({"name": m.name, "knobs": m.knobs, **result})
        _report_lost(lost, len(rows), console)
        table = {
            **summary(rows, seed, metric or default_metric(file.build(members[0].config), rows), goal),
            "wall_s": time.perf_counter() - begun,
            "compile_s": compile_s,
            "folder": str(path),
        }
        write_text(path / "result.json", json.dumps(finite(table), indent=1, default=str))
    return table


def _check_ends(experiment: Experiment) -> None:
    if experiment.stop_when is not None:
        raise ValueError(
            "sweep: got an experiment with stop_when; expected one without, since members train in step "
            "with each other. Leave it out, by a knob, and use --search halving, which stops the worse "
            "members early"
        )


def _report_lost(lost: Mapping[str, str], members: int, console: Console) -> None:
    """Warns of members that failed, by reason; ValueError where one reason ended all."""
    for reason in dict.fromkeys(lost.values()):
        names = [name for name, why in lost.items() if why == reason]
        if len(names) == members:
            raise ValueError(f"all {members} members failed: {reason}")
        some = ", ".join(names[:4]) + (" …" if len(names) > 4 else "")
        console.warn(f"{len(names)} members failed, {some}: {reason}")


@contextlib.contextmanager
def _open_folder(path: Path, identity: RunDefinition, file: File, console: Console) -> Iterator[None]:
    from jaxmodels.runs.folder import Folder
    from jaxmodels.sweeps.members import check_unchanged

    folder = Folder(path, keep=1, warn=console.warn)
    try:
        folder.open(identity)
        with console.busy("comparing the data with its fingerprint"):
            check_unchanged(file, path)
        folder.write_environment()
        yield
    finally:
        folder.close()


def _seed(file: File, values: Mapping[str, Any], members: Sequence[Member]) -> str:
    """The swept knob that is the experiment's seed; "" where there is none."""
    return next((k for k in values if all(file.build(m.config).seed == m.knobs[k] for m in members)), "")
