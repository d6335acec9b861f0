"""jaxmodels sweep: many settings of an experiment's knobs, trained together, compared, and each there to go on with.

SWEEP/experiment.py, knobs.json     what is swept, as in a run's folder; knobs.json without the knobs that are swept
SWEEP/members/NAME/                 log and result of each member, what it has learned from its data, and from which
SWEEP/together/N/                   checkpoints of members that train in one loop; the log of the job that trains it
SWEEP/study.journal, study.json     trials of --search tpe, and whose of them are this sweep's
SWEEP/submitit/                     what submitit writes of jobs: pickles
SWEEP/result.json                   the table
"""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.options import Options
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.runs import experiment_file
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.files import write_text
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.knob_types import plain
from jaxmodels.runs.metrics_file import finite
from jaxmodels.sweeps import executors, space, tpe
from jaxmodels.sweeps.halving import brackets, halve
from jaxmodels.sweeps.member_files import Member
from jaxmodels.sweeps.members import Setup, check_unchanged, remembered, result_of, train_members
from jaxmodels.sweeps.pbt import evolve
from jaxmodels.sweeps.statistics import check_metric, compare, goal_of, settings, verdict
from jaxmodels.training.check import check

EARLY = ("halving", "hyperband", "pbt")  # kinds of search that stop or change members on the way


def sweep(
    experiment: str | Path | experiment_file.File,
    *,
    folder: str | Path = "",
    search: str = "grid",
    trials: int = 0,
    draws: int = 0,
    study: str | Path = "",
    every: int = 0,
    metric: str = "",
    goal: str = "",
    on: str = "",
    workers: int = 2,
    resources: str = "",
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """Trains every setting of the knobs and compares them; goes on where it stopped, and trains only what is new.

    knobs: of the file; a list or a space.Range is swept, and so is a string such as "1e-4,3e-4" or "0..7"
    where the knob is no string; anything else is fixed. search: "grid" takes all combinations, "random" and
    "halton" draw `trials` from them; "halving", "hyperband" and "pbt" take all, or draw with trials, and stop
    or change members on the way. draws: the seed of what is drawn. "tpe" asks Optuna for `trials` settings in
    rounds; study: its journal, by default in the folder, which several sweeps may share. every: steps between
    generations of pbt. metric: by default the experiment's best, else the first accuracy or the first metric.
    on: "local", "slurm" or "ray" trains in `workers` jobs there, each of which asks for resources such as
    "partition=gpu,time=60". Gives {"members": [...], "settings": [...], "verdict": ...}.
    """
    options, console = options or Options(), console or Console(quiet=True)
    file = experiment_file.load(experiment)
    fixed, values = _sorted(file, knobs)
    base = experiment_file.make_config(file, fixed)
    if on and search in EARLY:
        raise ValueError(
            f"--search {search} looks at all members on the way, so they train here: leave out --on {on}"
        )
    if workers < 1:
        raise ValueError(f"--workers {workers}: wanted 1 or more")

    def member(swept: dict[str, Any]) -> Member:
        return remembered(
            file,
            path,
            Member(space.name_of(swept), swept, experiment_file.make_config(file, {**fixed, **swept})),
        )

    path = Path(folder or Path("runs") / f"sweep-{experiment_file.run_name(file, base)}")
    members = [
        member(swept) for swept in _chosen(values, search, trials, draws)
    ]  # of tpe one setting, to look at
    kept = {k: v for k, v in experiment_file.knobs_of(base).items() if k not in values}
    same_results = {"precision": options.precision, "accumulate": options.accumulate}
    lost: dict[str, str] = {}
    with contextlib.ExitStack() as stack:
        # First of all, since Ray starts processes by a fork, which JAX's threads do not survive.
        at = stack.enter_context(executors.place(on, path, resources)) if on else None
        mesh = make_mesh("")
        check(file.build(members[0].config), options)
        _check_ends(file.build(members[0].config))
        stack.enter_context(
            _held(path, RunDefinition(file.source, kept, same_results, file.beside), file, console)
        )
        executors.check_free(path, on)
        begun = time.perf_counter()
        done = {m.name: found for m in members if (found := result_of(path / "members" / m.name))}
        left = [m for m in members if m.name not in done]
        if search != "tpe":
            console.say(
                f"{len(members)} members" + (f", {len(done)} of them done before" if done else ""), "bold"
            )
        seed = _seed(file, values, members)
        setup = Setup(file, path, options, mesh, console)
        wanted = metric or (file.build(members[0].config).best or ("test/accuracy",))[0]
        goal_of_search = goal or goal_of(wanted)

        def train(members: list[Member]) -> float:
            if at is None:
                return train_members(setup, members)
            lost.update(executors.train(setup, members, at, workers))
            return math.nan  # the jobs compile

        if search == "tpe":
            how = _tpe(values, trials, wanted, goal_of_search, kept)
            members, compile_s = tpe.search(
                setup, how, Path(study or path / "study.journal"), draws, member, train
            )
            seed = _seed(file, values, members)
        elif search == "halving":
            compile_s = halve(setup, members, seed, wanted, goal_of_search)
        elif search == "hyperband":
            compile_s = sum(
                halve(setup, of, seed, wanted, goal_of_search, i) for of, i in brackets(members, seed)
            )
        elif search == "pbt":
            compile_s = evolve(setup, left, wanted, goal_of_search, every, draws)
        else:
            compile_s = train(left) if left else 0.0
        rows = []
        for m in members:
            absent = {"exit": f"failed: {lost[m.name]}" if m.name in lost else "absent", "metrics": {}}
            rows.append(
                {"name": m.name, "knobs": m.knobs, **(result_of(path / "members" / m.name) or absent)}
            )
        _say_lost(lost, len(rows), console)
        table = {
            **summary(rows, seed, metric or _metric(file.build(members[0].config), rows), goal),
            "wall_s": time.perf_counter() - begun,
            "compile_s": compile_s,
            "folder": str(path),
        }
        write_text(path / "result.json", json.dumps(finite(table), indent=1, default=str))
    return table


def _check_ends(experiment: Experiment) -> None:
    if experiment.stop_when is not None:
        raise ValueError(
            "sweep: got an experiment with stop_when; expected one without, since members train in step with each other. "
            "Leave it out, by a knob, and use --search halving, which stops the worse members early"
        )


def _say_lost(lost: Mapping[str, str], members: int, console: Console) -> None:
    for reason in dict.fromkeys(lost.values()):
        of = [name for name, why in lost.items() if why == reason]
        if len(of) == members:
            raise ValueError(f"all {members} members failed: {reason}")
        console.warn(f"{len(of)} members failed, {', '.join(of[:4])}{' …' if len(of) > 4 else ''}: {reason}")


def _tpe(
    values: Mapping[str, space.Values], trials: int, metric: str, goal: str, kept: Mapping[str, Any]
) -> tpe.Search:
    free, repeated = _apart(values)
    what = {"searched": free, "repeated": repeated, "knobs": kept, "metric": metric, "goal": goal}
    return tpe.Search(free, space.grid(repeated), trials, metric, goal, what)


def _apart(values: Mapping[str, space.Values]) -> tuple[dict[str, space.Values], dict[str, space.Values]]:
    """(what is drawn, seeds: of these every one is trained, so that settings can be compared)."""
    repeated: dict[str, space.Values] = {
        k: v for k, v in values.items() if k == "seed" and not isinstance(v, space.Range)
    }
    free = {k: v for k, v in values.items() if k not in repeated}
    if not free:
        raise ValueError(
            "seeds alone are swept, and there is nothing to draw: give another knob several values or a range"
        )
    return free, repeated


def _sorted(
    file: experiment_file.File, knobs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, space.Values]]:
    """(fixed knobs, values of those that are swept)."""
    hints = get_type_hints(file.config)
    experiment_file.make_config(
        file, {k: v for k, v in knobs.items() if k not in hints}
    )  # names those that there are not
    fixed: dict[str, Any] = {}
    values: dict[str, space.Values] = {}
    for name, given in knobs.items():
        if isinstance(given, str) and hints[name] not in (str, Path):
            given = space.read(name, given, hints[name])
        if isinstance(given, list) and len(given) == 1:
            fixed[name] = given[0]
        elif isinstance(given, list):
            values[name] = [plain(value) for value in given]
        elif isinstance(given, space.Range):
            values[name] = given
        else:
            fixed[name] = given
    if not values:
        raise ValueError("nothing is swept: give a knob several values, as in --lr 1e-4,3e-4 --seed 0..7")
    return fixed, values


def _chosen(values: Mapping[str, space.Values], search: str, trials: int, draws: int) -> list[dict[str, Any]]:
    if search == "grid" or (search in EARLY and not trials):
        if trials:
            raise ValueError(
                f"--trials {trials}: a grid has all combinations; draw from them with --search random or halton"
            )
        return space.grid(values)
    if trials < 1:
        raise ValueError(
            f"--search {search} draws as many settings as --trials says; it is {trials}, wanted 1 or more"
        )
    from scipy.stats import qmc

    free, repeated = _apart(values)
    if search == "random":
        units = np.random.default_rng(draws).random((trials, len(free)))
    elif search == "halton" or search in EARLY:
        units = qmc.Halton(len(free), rng=draws).random(trials)
    elif search == "tpe":
        units = np.full((1, len(free)), 0.5)
    else:
        raise ValueError(f"--search {search}: wanted grid, random, halton, tpe, {', '.join(EARLY)}")
    drawn = {repr(d): d for d in (space.draw(free, row) for row in units.tolist())}
    return [{**d, **rest} for d in drawn.values() for rest in space.grid(repeated)]


@contextlib.contextmanager
def _held(
    path: Path, identity: RunDefinition, file: experiment_file.File, console: Console
) -> Iterator[None]:
    holder = Folder(path, keep=1, warn=console.warn)
    try:
        holder.open(identity)
        with console.busy("comparing the data with what it was"):
            check_unchanged(file, path)
        holder.write_environment()
        yield
    finally:
        holder.close()


def _seed(file: experiment_file.File, values: Mapping[str, Any], members: Sequence[Member]) -> str:
    """The swept knob that is the experiment's seed; empty where there is none."""
    return next((k for k in values if all(file.build(m.config).seed == m.knobs[k] for m in members)), "")


def _metric(experiment: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(next((row["metrics"] for row in rows if row["metrics"]), {}))
    if experiment.best is not None:
        return experiment.best[0]
    return next((name for name in names if "accuracy" in name), names[0] if names else "loss")


def summary(rows: Sequence[Mapping[str, Any]], seed: str, metric: str, goal: str) -> dict[str, Any]:
    """The members, the settings with their statistics, and what may be said of them."""
    check_metric(metric, {name for row in rows for name in row["metrics"]})
    goal = goal or goal_of(metric)
    found = settings(rows, seed, metric)
    reference, compared = compare(found, goal)
    by = {repr(c.knobs): c for c in compared}

    def better(s):
        return (s.mean != s.mean, -(s.stopped or 1 << 62), -s.mean if goal == "max" else s.mean)

    ranked = sorted(found, key=better)
    return {
        "metric": metric,
        "goal": goal,
        "members": list(rows),
        "settings": [
            {
                **s._asdict(),
                "values": list(s.values.values()),
                "best": s is reference,
                "p": by[repr(s.knobs)].p if repr(s.knobs) in by else None,
                "difference": by[repr(s.knobs)].difference if repr(s.knobs) in by else None,
            }
            for s in ranked
        ],
        "diverged": sum(row["exit"].startswith("NotFinite") for row in rows),
        "failed": sum(row["exit"].startswith("failed") for row in rows),
        "verdict": verdict(reference, compared),
    }
