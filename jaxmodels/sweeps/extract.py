"""One member of a sweep as a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jaxmodels.experiment import Experiment
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import replicated
from jaxmodels.runs import experiment_file, files, identity
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.files import folders
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.knobs import read_knobs
from jaxmodels.runs.origin import check_code
from jaxmodels.state import abstract_state
from jaxmodels.step import State
from jaxmodels.sweeps.member_files import run_of
from jaxmodels.sweeps.members import Loop, loop_of, loops_in, member_of, result_of
from jaxmodels.sweeps.programs import stacked_shapes


def extract_member(sweep: str | Path, name: str, folder: str | Path, warn: Any = print) -> Path:
    """Makes a run's folder of one member of a sweep, to evaluate it, or to train it on by `jaxmodels train`.

    The sweep's experiment.py is run: it is code, as a run's folder is.
    """
    sweep, path = Path(sweep), Path(folder)
    names = {p.name for p in folders(sweep / "members")}
    if name not in names:
        known = ", ".join(sorted(names)[:8]) or "no members: is it a sweep?"
        raise ValueError(f"--take: got {name}; expected a member of {sweep}. It has {known}")
    check_code(sweep, warn)
    identity.verify(sweep)
    loop_folder = next((loop for loop in loops_in(sweep) if name in loop_of(loop).members), None)
    if loop_folder is None:
        raise ValueError(
            f"{sweep}: got no loop of {name}; expected one in together/. Let the sweep go on until it begins"
        )
    file = experiment_file.load(sweep / "experiment.py")
    result = result_of(sweep / "members" / name)
    member = member_of(file, sweep, name)
    experiment = file.build(member.config)
    loop = loop_of(loop_folder)
    index = loop.members.index(name)
    step, states, note = _read_checkpoint(experiment, loop_folder, loop, name)
    run = Folder(path, keep=experiment.keep)
    try:
        knobs = experiment_file.knobs_of(member.config)
        options = {"precision": read_knobs(sweep).options["precision"]}
        run.open(RunDefinition(file.source, knobs, options, file.beside, member.data))
        if learned := file.memory(member.config).values:
            run.write_learned(learned)
        decides_bits = {
            "steps_per_dispatch": loop.shape.k if loop.shape else 1,
            "checkpoint_every": experiment.checkpoint_every,
        }
        progress = {key: note["members"][index][key] for key in ("metrics", "interval")}
        own_note = {"step": step, "best": None, "names": note["names"], **progress, **decides_bits}
        run.checkpoints.save(step, jax.tree.map(lambda x: x[index], states), own_note)
        log = files.read_bytes(sweep / "members" / name / "metrics.jsonl", limit=files.LOG_LIMIT)
        files.write_bytes(path / "metrics.jsonl", log)
        run.write_environment(**decides_bits)
        if result is not None:
            run.write_result(result)
    finally:
        run.close()
    return path


def _read_checkpoint(
    experiment: Experiment, folder: Path, loop: Loop, name: str
) -> tuple[int, State, dict[str, Any]]:
    """(step, states of all members, note) of a loop's newest checkpoint."""
    mesh = make_mesh("data=1", jax.devices()[:1])
    one = abstract_state(experiment, mesh)[0]
    like = stacked_shapes(one, len(loop.members), replicated(mesh))
    restored = Checkpoints(folder / "checkpoints", run=run_of(folder)).read(like._asdict())
    if restored is None:
        raise ValueError(
            f"--take: got {name}, which has no checkpoint yet; expected one. "
            "Let the sweep go on until its first one"
        )
    return restored[0], type(like)(**restored[1]), restored[2]
