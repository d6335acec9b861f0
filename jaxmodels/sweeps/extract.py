"""One member of a sweep as a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

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
from jaxmodels.sweeps.member_files import run_of
from jaxmodels.sweeps.members import loop_of, loops_in, member_of, result_of
from jaxmodels.sweeps.programs import many


def take(swept: str | Path, name: str, folder: str | Path, warn: Any = print) -> Path:
    """Makes a run's folder of one member of a sweep, to evaluate it, or to go on with it by `jaxmodels train`.

    The sweep's experiment.py is run: it is code, as a run's folder is.
    """
    swept, path = Path(swept), Path(folder)
    known = {p.name for p in folders(swept / "members")}
    if name not in known:
        raise ValueError(
            f"{swept} has no member {name!r}; it has {', '.join(sorted(known)[:8]) or 'none: is it a sweep?'}"
        )
    check_code(swept, warn)
    identity.verify(swept)
    loops = [loop for loop in loops_in(swept) if name in loop_of(loop).members]
    if not loops:
        raise ValueError(
            f"{swept}: got no loop of {name}; expected one in together/. Let the sweep go on until it begins"
        )
    kept = read_knobs(swept)
    file = experiment_file.load(swept / "experiment.py")
    result = result_of(swept / "members" / name)
    loop = loops[0]
    here = loop_of(loop)
    chosen = member_of(file, swept, name)
    config = chosen.config
    built = file.build(config)
    mesh = make_mesh("data=1", jax.devices()[:1])
    one, at = abstract_state(built, mesh)[0], here.members.index(name)
    like = many(one, len(here.members), replicated(mesh))
    restored = Checkpoints(loop / "checkpoints", run=run_of(loop)).read(like._asdict())
    if restored is None:
        raise ValueError(f"{name} has no checkpoint yet; let the sweep go on until its first one")
    n, state, note = restored[0], type(like)(**restored[1]), restored[2]
    run = Folder(path, keep=built.keep)
    try:
        options = {"precision": kept.options["precision"]}
        run.open(
            RunDefinition(file.source, experiment_file.knobs_of(config), options, file.beside, chosen.data)
        )
        if learned := file.memory(config).values:
            run.write_learned(learned)
        member = note["members"][at]
        noted = {
            "step": n,
            "best": None,
            "names": note["names"],
            **{k: member[k] for k in ("metrics", "interval")},
        }
        deciding = {
            "steps_per_dispatch": here.how.k if here.how else 1,
            "checkpoint_every": built.checkpoint_every,
        }
        run.checkpoints.save(n, jax.tree.map(lambda x: x[at], state), noted | deciding)
        log = files.read_bytes(swept / "members" / name / "metrics.jsonl", limit=files.LOG_LIMIT)
        files.write_bytes(path / "metrics.jsonl", log)
        run.write_environment(**deciding)
        if result is not None:
            run.write_result(result)
    finally:
        run.close()
    return path
