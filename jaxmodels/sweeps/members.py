"""Members become loops: those that began together go on together, others are grouped by their program."""

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
from jaxmodels.sweeps.member_files import DATA, Member, ProgramShape, data_of
from jaxmodels.sweeps.orders import TrialBatches
from jaxmodels.sweeps.programs import GroupPrograms
from jaxmodels.sweeps.space import name_of
from jaxmodels.training.check_batches import check_data

RECENT = 8  # members whose data is compared with the next one's


class Setup(NamedTuple):
    """What is common to all members of a sweep. path: the sweep's folder."""

    file: experiment_file.File
    path: Path
    options: Options
    mesh: Any
    console: Console


def result_of(folder: Path) -> dict[str, Any] | None:
    """A member's result.json; None before its end."""
    path = folder / "result.json"
    if not os.path.lexists(path):
        return None
    result = read_json(path)
    if not isinstance(result.get("exit"), str) or not isinstance(result.get("metrics"), dict):
        raise BadFile(
            f"{path}: got no exit and metrics; expected those of a member that has ended. Remove it"
        )
    return result


class Loop(NamedTuple):
    """The members that train together, and the shape of their programs, where it is known yet."""

    members: list[str]
    shape: ProgramShape | None


def loop_of(folder: Path) -> Loop:
    """The loop of SWEEP/together/N/members.json; raises BadFile where a sweep does not write such a file."""
    path = folder / "members.json"
    content = checksummed_json.read(path)
    names, shape = content.get("members"), content.get("how")
    if not isinstance(names, list) or not names or not all(map(_is_name, names)):
        raise BadFile(
            f"{path}: got members {str(names)[:80]}; expected a list of names. "
            "Start the sweep in a new --folder"
        )
    if shape is None:
        return Loop(names, None)
    if not isinstance(shape, list) or len(shape) != 2 or not all(type(x) is int and x > 0 for x in shape):
        raise BadFile(
            f"{path}: got how {str(shape)[:80]}; expected two whole numbers. "
            "Start the sweep in a new --folder"
        )
    return Loop(names, ProgramShape(*shape))


def _is_name(x: Any) -> bool:
    return isinstance(x, str) and Path(x).name == x != ".."


def loops_in(path: Path) -> list[Path]:
    """The folders of loops, with members.json, of the sweep in this folder; the newest first."""
    numbered = [folder for folder in folders(path / "together") if re.fullmatch(r"[0-9]{1,9}", folder.name)]
    claimed = [folder for folder in numbered if regular(folder, "members.json")]
    return sorted(claimed, key=lambda folder: -int(folder.name))


def train_members(setup: Setup, left: Sequence[Member]) -> float:
    """Trains these members; gives the seconds of compilation."""
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
    """Seconds of compilation of these loops' programs; loops may share programs."""
    return sum({id(loop.programs): loop.programs.compile_s for loop in loops}.values())


def loops_of(setup: Setup, left: Sequence[Member]) -> list[Lockstep]:
    """Loops of these members, to be run: those that had begun first, as they were, then new ones."""
    begun, rest = begun_of(setup, left)
    loops: list[Lockstep] = []
    for folder, members, shape in begun:
        if shape is not None:
            setup.console.say(f"going on with {len(members)} members", "bold")
        configs = [m.config for m in members]
        [group], _ = groups(setup.file, configs, setup.options)
        programs = GroupPrograms(setup.file, configs, group, setup.options, setup.mesh)
        shape = shape or _choose_shape(setup, programs, members)
        loops.append(_loop(setup, programs, members, shape, folder))
    for programs, members in grouped(setup, rest):
        size = programs.most_members()
        shape = _choose_shape(setup, programs, members[:size])
        for start in range(0, len(members), size):
            part = members[start : start + size]
            loops.append(_loop(setup, programs, part, shape, new_folder(setup.path)))
    return loops


def begun_of(
    setup: Setup, left: Sequence[Member]
) -> tuple[list[tuple[Path, list[Member], ProgramShape | None]], list[Member]]:
    """(loops on the disk with members to train, all of them among these; the members of no such loop)."""
    by_name = {m.name: m for m in left}
    loops = []
    for folder in loops_in(setup.path):
        names, shape = loop_of(folder)
        others = [name for name in names if name not in by_name]
        ended = [(setup.path / "members" / name / "result.json").exists() for name in others]
        if len(others) < len(names) and all(ended):
            members = []
            for name in names:
                known = name in by_name
                members.append(by_name.pop(name) if known else member_of(setup.file, setup.path, name))
            loops.append((folder, members, shape))
    return loops, list(by_name.values())


def member_of(file: experiment_file.File, path: Path, name: str) -> Member:
    """A member of the sweep in this folder, from its files."""
    knobs = read_json(path / "members" / name / "knobs.json")
    if name_of(knobs) != name:
        raise Damaged(
            f"{path / 'members' / name / 'knobs.json'}: got the knobs of {name_of(knobs)}; expected those of "
            f"{name}. Restore an intact copy"
        )
    config = experiment_file.make_config(file, {**read_knobs(path).knobs, **knobs})
    return remembered(file, path, Member(name, knobs, config))


def remembered(file: experiment_file.File, path: Path, member: Member) -> Member:
    """The member with its data's fingerprints, and what it learned from its data, from the sweep's folder."""
    folder = path / "members" / member.name
    file.memory(member.config).values.update(read_learned(folder))
    return member._replace(data=data_of(folder))


def check_unchanged(file: experiment_file.File, path: Path) -> None:
    """Raises where the data of a member that has begun in this folder has changed."""
    begun = [member_of(file, path, f.name) for f in folders(path / "members") if os.path.lexists(f / DATA)]
    for member, now in zip(begun, _data(file, begun), strict=True):
        if changes := fingerprints.differences(member.data, now):
            raise ValueError(
                f"{path} holds another sweep: its member {member.name} has other data:\n  "
                + "\n  ".join(changes)
                + "\nBring the old data back, or sweep the new in another --folder"
            )


def _data(file: experiment_file.File, members: Sequence[Member]) -> list[dict[str, Any]]:
    """The fingerprints of each member's data; of members with the same data they are computed once."""
    recent: deque[tuple[Any, dict[str, Any]]] = deque(maxlen=RECENT)
    result = []
    for member in members:
        data = _pipelines(file.build(member.config))
        known = next((prints for other, prints in recent if same(data, other)), None)
        if known is None:
            known = fingerprints.fingerprints(file.build(member.config))
            recent.append((data, known))
        result.append(known)
    return result


def _pipelines(experiment: Experiment) -> dict[str, Any]:
    """By name; nothing is read."""
    return {"": experiment.train, **{name: as_evaluation(one).data for name, one in experiment.evals.items()}}


def grouped(setup: Setup, members: Sequence[Member]) -> Iterator[tuple[GroupPrograms, list[Member]]]:
    """Members by the program that they share."""
    if not members:
        return
    configs = [m.config for m in members]
    _check(setup.file.build(configs[0]))
    with setup.console.busy("computing the data's fingerprints"):
        prints = _data(setup.file, members)
    members = [m._replace(data=data) for m, data in zip(members, prints, strict=True)]
    found, notes = groups(setup.file, configs, setup.options)
    for note in notes:
        setup.console.warn(note)
    for i, group in enumerate(found):
        own = [members[index] for index in group.indices]
        varying = [k for k in own[0].knobs if len({repr(m.knobs[k]) for m in own}) > 1]
        vary = f", {', '.join(varying)} vary" if varying else ""
        setup.console.say(f"program {i + 1} of {len(found)}: {len(own)} members{vary}")
        yield GroupPrograms(setup.file, configs, group, setup.options, setup.mesh), own


def _check(experiment: Experiment) -> None:
    """Checks the seed and the data before tracing, whose errors are harder to read.

    Each member's data is checked by its loop.
    """
    keys.words(experiment.seed, "the experiment's seed")
    state = jax.eval_shape(lambda: initial(experiment))
    check_data(experiment, state.params, state.extra)


def _choose_shape(setup: Setup, programs: GroupPrograms, members: Sequence[Member]) -> ProgramShape:
    """The fastest number of members in a program, and of steps in a dispatch."""
    experiment = programs.experiment
    events = tuple(every for every in (experiment.eval_every, experiment.checkpoint_every) if every)
    with setup.console.busy("timing programs of several numbers of members"):
        batches = TrialBatches([setup.file.build(m.config) for m in members])
        shape = programs.choose([m.config for m in members], batches, events or (experiment.steps,))
    size, k = shape
    setup.console.say(f"{size} in a program, {k} steps in a dispatch", "dim")
    return ProgramShape(size, k)


def new_folder(path: Path) -> Path:
    """Makes a folder for a loop, with the next free number."""
    (path / "together").mkdir(parents=True, exist_ok=True)
    number = max((int(p.name) for p in (path / "together").glob("*") if p.name.isdigit()), default=0) + 1
    while True:
        try:
            (path / "together" / str(number)).mkdir()
            return path / "together" / str(number)
        except FileExistsError:
            number += 1


def _loop(
    setup: Setup, programs: GroupPrograms, members: list[Member], shape: ProgramShape, folder: Path
) -> Lockstep:
    loop = Lockstep(programs, members, shape, folder, setup.path / "members", setup.console)
    loop.claim()
    return loop
