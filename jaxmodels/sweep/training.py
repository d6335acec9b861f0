"""Members to loops: those that had begun together go on together, the others are grouped by the program that they share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels import loading
from jaxmodels.console import Console
from jaxmodels.folder import read_json
from jaxmodels.options import Options
from jaxmodels.sweep.programs import GroupPrograms
from jaxmodels.sweep.together import How, Member, Together, trial
from jaxmodels.sweep.tracing import groups


class Setup(NamedTuple):
    """What all members of a sweep have in common. path: the sweep's folder."""

    file: loading.File
    path: Path
    options: Options
    mesh: Any
    console: Console


def result_of(folder: Path) -> dict[str, Any] | None:
    """What a member's result.json says; None before its end."""
    path = folder / "result.json"
    return read_json(path) if path.is_file() else None


def train_members(setup: Setup, left: Sequence[Member]) -> float:
    """Trains the members that are left, those that had begun together first; gives the seconds spent on compiling."""
    by_name, spent = {m.name: m for m in left}, 0.0
    for folder in sorted((p.parent for p in (setup.path / "together").glob("*/members.json")), key=lambda p: int(p.name)):
        known = read_json(folder / "members.json")
        if all(name in by_name for name in known["members"]):
            members = [by_name.pop(name) for name in known["members"]]
            setup.console.say(f"going on with {len(members)} members", "bold")
            configs = [m.config for m in members]
            [group], _ = groups(setup.file, configs, setup.options)
            programs = GroupPrograms(setup.file, configs, group, setup.options, setup.mesh)
            _loop(setup, programs, members, How(*known["how"]), folder)
            spent += programs.compile_s
    left = list(by_name.values())
    if not left:
        return spent
    configs = [m.config for m in left]
    found, notes = groups(setup.file, configs, setup.options)
    for note in notes:
        setup.console.warn(note)
    for i, group in enumerate(found):
        members = [left[at] for at in group.at]
        varying = [k for k in members[0].knobs if len({repr(m.knobs[k]) for m in members}) > 1]
        of = f"program {i + 1} of {len(found)}: {len(members)} members"
        setup.console.say(of + (f", {', '.join(varying)} vary" if varying else ""))
        programs = GroupPrograms(setup.file, configs, group, setup.options, setup.mesh)
        _group(setup, programs, members)
        spent += programs.compile_s
    return spent


def _group(setup: Setup, programs: GroupPrograms, members: list[Member]) -> None:
    """Trains a group's members, so many in a program as is fastest."""
    experiment = programs.experiment
    events = tuple(e for e in (experiment.eval_every, experiment.checkpoint_every) if e) or (experiment.steps,)
    lockstep = programs.lockstep()
    with setup.console.busy("finding out how many members make the fastest program"):
        some = members[:lockstep]
        batches = trial([setup.file.build(m.config) for m in some])
        how = How(*programs.choose([m.config for m in some], batches, events), lockstep)
    setup.console.say(f"{how.size} in a program, {how.k} steps in a dispatch", "dim")
    for i in range(0, len(members), lockstep):
        _loop(setup, programs, members[i : i + lockstep], how, _new_folder(setup.path))


def _new_folder(path: Path) -> Path:
    numbers = [int(p.name) for p in (path / "together").glob("*") if p.name.isdigit()]
    return path / "together" / str(max(numbers, default=0) + 1)


def _loop(setup: Setup, programs: GroupPrograms, members: list[Member], how: How, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "members.json").exists():
        new = folder / ".members.new"
        new.write_text(json.dumps({"members": [m.name for m in members], "how": how}))
        new.replace(folder / "members.json")
    loop = Together(programs, members, how, folder, setup.path / "members", setup.console)
    with setup.console.progress(0, programs.experiment.steps):
        loop.run()
    lost = [m.name for m, d in zip(members, loop.diverged, strict=True) if d is not None]
    if lost:
        setup.console.warn(f"{len(lost)} diverged and were frozen: {', '.join(lost[:4])}{' …' if len(lost) > 4 else ''}")
    loop.finish()
