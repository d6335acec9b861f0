"""One member of a sweep as a run of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

from jaxmodels import loading, parallel, runner
from jaxmodels.checkpoint import Checkpoints
from jaxmodels.folder import Folder, Identity, read_json
from jaxmodels.runs.origin import check_code
from jaxmodels.sweeps.programs import many
from jaxmodels.sweeps.together import How
from jaxmodels.sweeps.training import member_of, result_of


def take(swept: str | Path, name: str, folder: str | Path, warn: Any = print) -> Path:
    """Makes a run's folder of one member of a sweep, to evaluate it, or to go on with it by `jaxmodels train`.

    The sweep's experiment.py is run: it is code, as a run's folder is.
    """
    swept, path = Path(swept), Path(folder)
    known = {p.name for p in (swept / "members").glob("*")} if swept.is_dir() else set()
    if name not in known:
        raise ValueError(f"{swept} has no member {name!r}; it has {', '.join(sorted(known)[:8]) or 'none: is it a sweep?'}")
    loops = [p.parent for p in (swept / "together").glob("*/members.json") if name in read_json(p)["members"]]
    kept = read_json(swept / "knobs.json")
    check_code(swept, warn)
    file = loading.load(swept / "experiment.py")
    result = result_of(swept / "members" / name)
    loop = max(loops, key=lambda p: int(p.name))
    here = read_json(loop / "members.json")
    config = member_of(file, swept, name).config
    built = file.build(config)
    mesh = parallel.make_mesh("data=1", jax.devices()[:1])
    one, at = runner.abstract_state(built, mesh)[0], here["members"].index(name)
    like = many(one, len(here["members"]), parallel.replicated(mesh))
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
