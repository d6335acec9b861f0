"""jaxmodels sweep: many settings of an experiment's knobs, trained together, compared, and each there to go on with.

SWEEP/experiment.py, knobs.json     what is swept, as in a run's folder; knobs.json without the knobs that are swept
SWEEP/members/NAME/                 log and result of each member
SWEEP/together/N/                   checkpoints of members that train in one loop
SWEEP/result.json                   the table
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import jax
import numpy as np

from jaxmodels import loading, parallel, runner
from jaxmodels.checkpoint import Checkpoints
from jaxmodels.console import Console
from jaxmodels.folder import Folder, Identity, read_json
from jaxmodels.metrics import finite
from jaxmodels.options import Options
from jaxmodels.sweep import space
from jaxmodels.sweep.programs import GroupPrograms
from jaxmodels.sweep.statistics import compare, settings, verdict
from jaxmodels.sweep.together import How, Member, Together, trial
from jaxmodels.sweep.tracing import groups

LOWER = ("loss", "error", "perplexity", "bits", "mse", "mae", "distance", "rate")  # words of metrics that should be small


def sweep(
    experiment: str | Path,
    *,
    folder: str | Path = "",
    search: str = "grid",
    trials: int = 0,
    draws: int = 0,
    metric: str = "",
    goal: str = "",
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """Trains every setting of the knobs and compares them; goes on where it stopped, and trains only what is new.

    knobs: of the file; a list or a space.Range is swept, and so is a string such as "1e-4,3e-4" or "0..7" where the knob is
    no string; anything else is fixed. search: "grid" takes all combinations, "random" and "halton" draw `trials` from them.
    draws: the seed of what is drawn. metric: by default the experiment's best, else the first accuracy or the first metric.
    Gives {"members": [...], "settings": [...], "verdict": ...}.
    """
    options, console = options or Options(), console or Console(quiet=True)
    file = loading.load(experiment)
    fixed, values = _sorted(file, knobs)
    base = loading.make_config(file, fixed)
    chosen = _chosen(values, search, trials, draws)
    members = []
    for swept in chosen:
        config = loading.make_config(file, {**fixed, **swept})
        members.append(Member(space.name_of(swept), swept, config))
    path = Path(folder or Path("runs") / f"sweep-{loading.run_name(file, base)}")
    mesh = parallel.make_mesh("")
    runner.check(file.build(members[0].config), options)
    kept = {k: v for k, v in loading.knobs_of(base).items() if k not in values}
    same_results = {"precision": options.precision, "accumulate": options.accumulate}
    with _held(path, Identity(file.source, kept, same_results), console):
        begun = time.perf_counter()
        done = {m.name: found for m in members if (found := _result(path / "members" / m.name))}
        left = [m for m in members if m.name not in done]
        console.say(f"{len(members)} members" + (f", {len(done)} of them done before" if done else ""), "bold")
        compile_s = _train(file, left, path, options, mesh, console)
        seeded = next((k for k in values if all(file.build(m.config).seed == m.knobs[k] for m in members)), "")
        rows = [
            {"name": m.name, "knobs": m.knobs, **(_result(path / "members" / m.name) or {"exit": "absent", "metrics": {}})}
            for m in members
        ]
        table = {
            **summary(rows, seeded, metric or _metric(file.build(members[0].config), rows), goal),
            "wall_s": time.perf_counter() - begun,
            "compile_s": compile_s,
            "folder": str(path),
        }
        new = path / ".result.new"
        new.write_text(json.dumps(finite(table), indent=1, default=str))
        new.replace(path / "result.json")
    return table


def _sorted(file: loading.File, knobs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, space.Values]]:
    """(fixed knobs, values of those that are swept)."""
    hints = get_type_hints(file.config)
    loading.make_config(file, {k: v for k, v in knobs.items() if k not in hints})  # names those that there are not
    fixed: dict[str, Any] = {}
    values: dict[str, space.Values] = {}
    for name, given in knobs.items():
        if isinstance(given, str) and hints[name] is not str:
            given = space.read(name, given, hints[name])
        if isinstance(given, list) and len(given) == 1:
            fixed[name] = given[0]
        elif isinstance(given, list | space.Range):
            values[name] = given
        else:
            fixed[name] = given
    if not values:
        raise ValueError("nothing is swept: give a knob several values, as in --lr 1e-4,3e-4 --seed 0..7")
    return fixed, values


def _chosen(values: Mapping[str, space.Values], search: str, trials: int, draws: int) -> list[dict[str, Any]]:
    if search == "grid":
        if trials:
            raise ValueError(
                f"--trials {trials}: a grid has all combinations; draw from them with --search random or halton"
            )
        return space.grid(values)
    if trials < 1:
        raise ValueError(f"--search {search} draws as many settings as --trials says; it is {trials}, wanted 1 or more")
    from scipy.stats import qmc

    # Of seeds every one is trained, so that settings can be compared.
    free = {k: v for k, v in values.items() if k != "seed" or isinstance(v, space.Range)}
    if search == "random":
        units = np.random.default_rng(draws).random((trials, len(free)))
    elif search == "halton":
        units = qmc.Halton(len(free), rng=draws).random(trials)
    else:
        raise ValueError(f"--search {search}: wanted grid, random or halton")
    drawn = {repr(d): d for d in (space.draw(free, row) for row in units.tolist())}
    return [{**d, **rest} for d in drawn.values() for rest in space.grid({k: v for k, v in values.items() if k not in free})]


@contextlib.contextmanager
def _held(path: Path, identity: Identity, console: Console) -> Iterator[None]:
    holder = Folder(path, keep=1, warn=console.warn)
    try:
        holder.open(identity)
        yield
    finally:
        holder.close()


def _result(folder: Path) -> dict[str, Any] | None:
    path = folder / "result.json"
    return read_json(path) if path.is_file() else None


def _train(file: loading.File, left: Sequence[Member], path: Path, options: Options, mesh: Any, console: Console) -> float:
    """Trains the members that are left, those that had begun together first; gives the seconds spent on compiling."""
    by_name, spent = {m.name: m for m in left}, 0.0
    for folder in sorted((p.parent for p in (path / "together").glob("*/members.json")), key=lambda p: int(p.name)):
        known = read_json(folder / "members.json")
        if all(name in by_name for name in known["members"]):
            members = [by_name.pop(name) for name in known["members"]]
            console.say(f"going on with {len(members)} members", "bold")
            configs = [m.config for m in members]
            [group], _ = groups(file, configs, options)
            programs = GroupPrograms(file, configs, group, options, mesh)
            _loop(programs, members, How(*known["how"]), folder, path, console)
            spent += programs.compile_s
    left = list(by_name.values())
    if not left:
        return spent
    configs = [m.config for m in left]
    found, notes = groups(file, configs, options)
    for note in notes:
        console.warn(note)
    for i, group in enumerate(found):
        members = [left[at] for at in group.at]
        varying = [k for k in members[0].knobs if len({repr(m.knobs[k]) for m in members}) > 1]
        console.say(
            f"program {i + 1} of {len(found)}: {len(members)} members" + (f", {', '.join(varying)} vary" if varying else "")
        )
        programs = GroupPrograms(file, configs, group, options, mesh)
        _group(programs, members, path, console)
        spent += programs.compile_s
    return spent


def _group(programs: GroupPrograms, members: list[Member], path: Path, console: Console) -> None:
    """Trains a group's members, so many in a program as is fastest."""
    experiment = programs.experiment
    events = tuple(e for e in (experiment.eval_every, experiment.checkpoint_every) if e) or (experiment.steps,)
    lockstep = programs.lockstep()
    with console.busy("finding out how many members make the fastest program"):
        some = members[:lockstep]
        batches = trial([programs.file.build(m.config) for m in some])
        how = How(*programs.choose([m.config for m in some], batches, events), lockstep)
    console.say(f"{how.size} in a program, {how.k} steps in a dispatch", "dim")
    numbers = [int(p.name) for p in (path / "together").glob("*") if p.name.isdigit()]
    for i in range(0, len(members), lockstep):
        folder = path / "together" / str(max(numbers, default=0) + 1 + i // lockstep)
        _loop(programs, members[i : i + lockstep], how, folder, path, console)


def _loop(programs: GroupPrograms, members: list[Member], how: How, folder: Path, path: Path, console: Console) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "members.json").exists():
        new = folder / ".members.new"
        new.write_text(json.dumps({"members": [m.name for m in members], "how": how}))
        new.replace(folder / "members.json")
    loop = Together(programs, members, how, folder, path / "members", console)
    with console.progress(0, programs.experiment.steps):
        loop.run()
    lost = [m.name for m, d in zip(members, loop.diverged, strict=True) if d is not None]
    if lost:
        console.warn(f"{len(lost)} diverged and were frozen: {', '.join(lost[:4])}{' …' if len(lost) > 4 else ''}")
    loop.finish()


def _metric(experiment: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    names = list(next((row["metrics"] for row in rows if row["metrics"]), {}))
    if experiment.best is not None:
        return experiment.best[0]
    return next((name for name in names if "accuracy" in name), names[0] if names else "loss")


def summary(rows: Sequence[Mapping[str, Any]], seed: str, metric: str, goal: str) -> dict[str, Any]:
    """The members, the settings with their statistics, and what may be said of them."""
    names = {name for row in rows for name in row["metrics"]}
    if names and metric not in names:
        raise ValueError(f"--metric {metric}: the evaluations give {', '.join(sorted(names))}; take one of those")
    goal = goal or ("min" if any(word in metric.rpartition("/")[2] for word in LOWER) else "max")
    found = settings(rows, seed, metric)
    reference, compared = compare(found, goal)
    by = {repr(c.knobs): c for c in compared}
    ranked = sorted(found, key=lambda s: (s.mean != s.mean, -s.mean if goal == "max" else s.mean))
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
        "verdict": verdict(reference, compared),
    }


def take(swept: str | Path, name: str, folder: str | Path) -> Path:
    """Makes a run's folder of one member of a sweep, to evaluate it, or to go on with it by `jaxmodels train`."""
    swept, path = Path(swept), Path(folder)
    known = {p.name for p in (swept / "members").glob("*")} if swept.is_dir() else set()
    if name not in known:
        raise ValueError(f"{swept} has no member {name!r}; it has {', '.join(sorted(known)[:8]) or 'none: is it a sweep?'}")
    loops = [p.parent for p in (swept / "together").glob("*/members.json") if name in read_json(p)["members"]]
    kept = read_json(swept / "knobs.json")
    file = loading.load(swept / "experiment.py")
    result = _result(swept / "members" / name)
    loop = max(loops, key=lambda p: int(p.name))
    here = read_json(loop / "members.json")
    swept_knobs = read_json(swept / "members" / name / "knobs.json")
    config = loading.make_config(file, {**kept["knobs"], **swept_knobs})
    built = file.build(config)
    mesh = parallel.make_mesh("data=1", jax.devices()[:1])
    one, at = runner.abstract_state(built, mesh)[0], here["members"].index(name)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((len(here["members"]), *x.shape), x.dtype, sharding=parallel.replicated(mesh)), one
    )
    restored = Checkpoints(loop / "checkpoints").restore(like)
    if restored is None:
        raise ValueError(f"{name} has no checkpoint yet; let the sweep go on until its first one")
    n, state, note = restored
    run = Folder(path, keep=built.keep)
    try:
        options = {"precision": kept["options"]["precision"]}
        run.open(Identity(file.source, loading.knobs_of(config), options))
        member = note["members"][at]
        noted = {"step": n, "best": None, "names": note["names"], **{k: member[k] for k in ("metrics", "interval")}}
        run.checkpoints.save(n, jax.tree.map(lambda x: x[at], state), noted)
        (path / "metrics.jsonl").write_bytes((swept / "members" / name / "metrics.jsonl").read_bytes())
        run.write_environment(steps_per_dispatch=How(*here["how"]).k, checkpoint_every=built.checkpoint_every)
        if result is not None:
            run.write_result(result)
    finally:
        run.close()
    return path
