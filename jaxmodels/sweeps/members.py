"""Members to loops: those that had begun together go on together, the others are grouped by the program that they share."""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from jaxmodels import keys
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment, as_evaluation
from jaxmodels.options import Options
from jaxmodels.runs import checksummed_json, experiment_file, fingerprints
from jaxmodels.runs.checksummed_json import Damaged
from jaxmodels.runs.files import BadFile, folders, read_json, regular
from jaxmodels.runs.knobs import read_knobs
from jaxmodels.runs.learned import read_learned
from jaxmodels.state import initial
from jaxmodels.sweeps.grouping import groups, same
from jaxmodels.sweeps.lockstep import Lockstep
from jaxmodels.sweeps.member_files import DATA, How, Member, data_of
from jaxmodels.sweeps.orders import Trial
from jaxmodels.sweeps.programs import GroupPrograms
from jaxmodels.sweeps.space import name_of
from jaxmodels.training.check_batches import check_data

RECENT = 8  # members whose data is compared with the next one's


class Setup(NamedTuple):
    """What all members of a sweep have in common. path: the sweep's folder."""

    file: experiment_file.File
    path: Path
    options: Options
    mesh: Any
    console: Console


def result_of(folder: Path) -> dict[str, Any] | None:
    """What a member's result.json says; None before its end."""
    path = folder / "result.json"
    if not os.path.lexists(path):
        return None
    found = read_json(path)
    if not isinstance(found.get("exit"), str) or not isinstance(found.get("metrics"), dict):
        raise BadFile(
            f"{path}: got no exit and metrics; expected those of a member that has ended. Remove it"
        )
    return found


class Loop(NamedTuple):
    """What together/N/members.json says: the members that train together, and how, where that is known yet."""

    members: list[str]
    how: How | None


def loop_of(folder: Path) -> Loop:
    """That of a loop's folder; raises BadFile where it is not what a sweep writes."""
    path = folder / "members.json"
    found = checksummed_json.read(path)
    names, how = found.get("members"), found.get("how")
    if (
        not isinstance(names, list)
        or not names
        or not all(isinstance(n, str) and Path(n).name == n != ".." for n in names)
    ):
        raise BadFile(
            f"{path}: got members {str(names)[:80]}; expected a list of names. Start the sweep in a new --folder"
        )
    if how is not None and not (
        isinstance(how, list) and len(how) == 2 and all(type(x) is int and x > 0 for x in how)
    ):
        raise BadFile(
            f"{path}: got how {str(how)[:80]}; expected two whole numbers. Start the sweep in a new --folder"
        )
    return Loop(names, None if how is None else How(*how))


def loops_in(path: Path) -> list[Path]:
    """The folders of loops of the sweep in this folder that say their members, the newest first."""
    numbered = [folder for folder in folders(path / "together") if re.fullmatch(r"[0-9]{1,9}", folder.name)]
    return sorted((f for f in numbered if regular(f, "members.json")), key=lambda f: -int(f.name))


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


def compiled_s(loops: Sequence[Lockstep]) -> float:
    """Seconds that the programs of these loops took to compile; several may share some."""
    return sum({id(loop.programs): loop.programs.compile_s for loop in loops}.values())


def loops_of(setup: Setup, left: Sequence[Member]) -> list[Lockstep]:
    """Loops of these members, to be run: those that had begun first, as they had, then new ones."""
    begun, rest = begun_of(setup, left)
    found: list[Lockstep] = []
    for folder, members, how in begun:
        if how is not None:
            setup.console.say(f"going on with {len(members)} members", "bold")
        configs = [m.config for m in members]
        [group], _ = groups(setup.file, configs, setup.options)
        programs = GroupPrograms(setup.file, configs, group, setup.options, setup.mesh)
        found.append(_loop(setup, programs, members, how or _how(setup, programs, members), folder))
    for programs, members in grouped(setup, rest):
        size = programs.lockstep()
        how = _how(setup, programs, members[:size])
        parts = [members[i : i + size] for i in range(0, len(members), size)]
        found += [_loop(setup, programs, part, how, new_folder(setup.path)) for part in parts]
    return found


def begun_of(
    setup: Setup, left: Sequence[Member]
) -> tuple[list[tuple[Path, list[Member], How | None]], list[Member]]:
    """(loops on the disk that have members to train among these and none elsewhere, the members of no such loop)."""
    by_name = {m.name: m for m in left}
    found = []
    for folder in loops_in(setup.path):
        names, how = loop_of(folder)
        over = [name for name in names if name not in by_name]
        if len(over) < len(names) and all(
            (setup.path / "members" / name / "result.json").exists() for name in over
        ):
            members = [
                by_name.pop(n) if n in by_name else member_of(setup.file, setup.path, n) for n in names
            ]
            found.append((folder, members, how))
    return found, list(by_name.values())


def member_of(file: experiment_file.File, path: Path, name: str) -> Member:
    """A member of the sweep in this folder, as the disk knows it."""
    knobs = read_json(path / "members" / name / "knobs.json")
    if name_of(knobs) != name:
        raise Damaged(
            f"{path / 'members' / name / 'knobs.json'}: got the knobs of {name_of(knobs)}; expected those of {name}. "
            "Copy it back from where it was intact"
        )
    return remembered(
        file,
        path,
        Member(name, knobs, experiment_file.make_config(file, {**read_knobs(path).knobs, **knobs})),
    )


def remembered(file: experiment_file.File, path: Path, member: Member) -> Member:
    """The member with what the sweep in this folder knows of its data, and has learned from it."""
    folder = path / "members" / member.name
    file.memory(member.config).values.update(read_learned(folder))
    return member._replace(data=data_of(folder))


def check_unchanged(file: experiment_file.File, path: Path) -> None:
    """Raises where the data of a member that has begun in this folder is not what it was."""
    begun = [member_of(file, path, f.name) for f in folders(path / "members") if os.path.lexists(f / DATA)]
    for member, now in zip(begun, _data(file, begun), strict=True):
        if changes := fingerprints.differences(member.data, now):
            raise ValueError(
                f"{path} holds another sweep: its member {member.name} has other data:\n  "
                + "\n  ".join(changes)
                + "\nBring the old data back, or sweep the new in another --folder"
            )


def _data(file: experiment_file.File, members: Sequence[Member]) -> list[dict[str, Any]]:
    """The fingerprints of each one's data; those of members with the same data are taken once."""
    seen: deque[tuple[Any, dict[str, Any]]] = deque(maxlen=RECENT)
    found = []
    for member in members:
        data = _unread(file.build(member.config))
        known = next((told for other, told in seen if same(data, other)), None)
        if known is None:
            known = fingerprints.fingerprints(file.build(member.config))
            seen.append((data, known))
        found.append(known)
    return found


def _unread(experiment: Experiment) -> dict[str, Any]:
    return {"": experiment.train, **{name: as_evaluation(one).data for name, one in experiment.evals.items()}}


def grouped(setup: Setup, members: Sequence[Member]) -> Iterator[tuple[GroupPrograms, list[Member]]]:
    """Members by the program that they share."""
    configs = [m.config for m in members]
    if members:
        _check(setup.file.build(configs[0]))
        with setup.console.busy("taking the data's fingerprints"):
            told = _data(setup.file, members)
        members = [m._replace(data=data) for m, data in zip(members, told, strict=True)]
    apart, notes = groups(setup.file, configs, setup.options) if members else ([], [])
    for note in notes:
        setup.console.warn(note)
    for i, group in enumerate(apart):
        of_group = [members[at] for at in group.at]
        varying = [k for k in of_group[0].knobs if len({repr(m.knobs[k]) for m in of_group}) > 1]
        of = f"program {i + 1} of {len(apart)}: {len(of_group)} members"
        setup.console.say(of + (f", {', '.join(varying)} vary" if varying else ""))
        yield GroupPrograms(setup.file, configs, group, setup.options, setup.mesh), of_group


def _check(experiment: Experiment) -> None:
    """In words, before anything is traced that would say it in its own; each member's data are looked at by its loop."""
    keys.words(experiment.seed, "the experiment's seed")
    state = jax.eval_shape(lambda: initial(experiment))
    check_data(experiment, state.params, state.extra)


def _how(setup: Setup, programs: GroupPrograms, members: Sequence[Member]) -> How:
    """So many members in a program as is fastest."""
    experiment = programs.experiment
    events = tuple(e for e in (experiment.eval_every, experiment.checkpoint_every) if e) or (
        experiment.steps,
    )
    with setup.console.busy("finding out how many members make the fastest program"):
        batches = Trial([setup.file.build(m.config) for m in members])
        how = How(*programs.choose([m.config for m in members], batches, events))
    setup.console.say(f"{how.size} in a program, {how.k} steps in a dispatch", "dim")
    return how


def new_folder(path: Path) -> Path:
    """A folder for a loop, made with the next number that nobody else has."""
    (path / "together").mkdir(parents=True, exist_ok=True)
    number = max((int(p.name) for p in (path / "together").glob("*") if p.name.isdigit()), default=0) + 1
    while True:
        try:
            (path / "together" / str(number)).mkdir()
            return path / "together" / str(number)
        except FileExistsError:
            number += 1


def _loop(setup: Setup, programs: GroupPrograms, members: list[Member], how: How, folder: Path) -> Lockstep:
    loop = Lockstep(programs, members, how, folder, setup.path / "members", setup.console)
    loop.claim()
    return loop
