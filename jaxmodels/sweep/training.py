"""Members to loops: those that had begun together go on together, the others are grouped by the program that they share."""

from __future__ import annotations

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
    """Trains the members that are left; gives the seconds spent on compiling."""
    loops = loops_of(setup, left)
    for loop in loops:
        with setup.console.progress(0, loop.first.steps):
            loop.run()
        lost = [m.name for m, d in zip(loop.members, loop.diverged, strict=True) if d is not None]
        if lost:
            more = " …" if len(lost) > 4 else ""
            setup.console.warn(f"{len(lost)} diverged and were frozen: {', '.join(lost[:4])}{more}")
        loop.finish()
    return compiled_s(loops)


def compiled_s(loops: Sequence[Together]) -> float:
    """Seconds that the programs of these loops took to compile; several may share some."""
    return sum({id(loop.programs): loop.programs.compile_s for loop in loops}.values())


def loops_of(setup: Setup, left: Sequence[Member]) -> list[Together]:
    """Loops of these members, to be run: those that had begun first, as they had, then new ones."""
    by_name = {m.name: m for m in left}
    found: list[Together] = []
    for folder in sorted((p.parent for p in (setup.path / "together").glob("*/members.json")), key=lambda p: -int(p.name)):
        known = read_json(folder / "members.json")
        if all(name in by_name for name in known["members"]):
            members = [by_name.pop(name) for name in known["members"]]
            setup.console.say(f"going on with {len(members)} members", "bold")
            configs = [m.config for m in members]
            [group], _ = groups(setup.file, configs, setup.options)
            programs = GroupPrograms(setup.file, configs, group, setup.options, setup.mesh)
            found.append(_loop(setup, programs, members, How(*known["how"]), folder))
    left = list(by_name.values())
    if not left:
        return found
    configs = [m.config for m in left]
    apart, notes = groups(setup.file, configs, setup.options)
    for note in notes:
        setup.console.warn(note)
    for i, group in enumerate(apart):
        members = [left[at] for at in group.at]
        varying = [k for k in members[0].knobs if len({repr(m.knobs[k]) for m in members}) > 1]
        of = f"program {i + 1} of {len(apart)}: {len(members)} members"
        setup.console.say(of + (f", {', '.join(varying)} vary" if varying else ""))
        programs = GroupPrograms(setup.file, configs, group, setup.options, setup.mesh)
        found += _group(setup, programs, members)
    return found


def _group(setup: Setup, programs: GroupPrograms, members: list[Member]) -> list[Together]:
    """Loops of a group's members, so many in a program as is fastest."""
    experiment = programs.experiment
    events = tuple(e for e in (experiment.eval_every, experiment.checkpoint_every) if e) or (experiment.steps,)
    lockstep = programs.lockstep()
    with setup.console.busy("finding out how many members make the fastest program"):
        some = members[:lockstep]
        batches = trial([setup.file.build(m.config) for m in some])
        how = How(*programs.choose([m.config for m in some], batches, events))
    setup.console.say(f"{how.size} in a program, {how.k} steps in a dispatch", "dim")
    return [
        _loop(setup, programs, members[i : i + lockstep], how, new_folder(setup.path))
        for i in range(0, len(members), lockstep)
    ]


def new_folder(path: Path) -> Path:
    """A folder for a loop, with the next number."""
    numbers = [int(p.name) for p in (path / "together").glob("*") if p.name.isdigit()]
    return path / "together" / str(max(numbers, default=0) + 1)


def _loop(setup: Setup, programs: GroupPrograms, members: list[Member], how: How, folder: Path) -> Together:
    loop = Together(programs, members, how, folder, setup.path / "members", setup.console)
    loop.claim()
    return loop
