"""One case in a process of its own, so that its peak memory and its compilations are its own:

python -m jaxmodels.bench.worker '{"name": "mlp", "size": "tiny", …}'     prints one line of JSON
"""

from __future__ import annotations

import json
import sys
from typing import Any


def run(wanted: dict[str, Any]) -> dict[str, Any]:
    """The results and the devices of a case; {"error": …} where it failed."""
    import jax

    from jaxmodels.analysis.memory import is_out_of_memory
    from jaxmodels.bench.measure import describe, measure
    from jaxmodels.bench.timing import FULL, QUICK
    from jaxmodels.parallel.mesh import make_mesh

    devices = wanted["devices"] or len(jax.devices())
    mesh = make_mesh(f"data={devices}")
    effort = QUICK if wanted["quick"] else FULL
    size = wanted["size"]
    if size == "auto":
        size = "tiny" if wanted["quick"] else "reduced" if mesh.devices.flat[0].platform == "cpu" else "full"
    while True:
        try:
            results = measure(wanted["name"], size, mesh, wanted["compile"], wanted["precision"], effort)
            return {"devices": describe(mesh), "results": results}
        except Exception as error:
            if wanted["size"] == "auto" and size == "full" and is_out_of_memory(error):
                size = "reduced"  # which its results are named
                continue
            return {
                "devices": describe(mesh),
                "results": [],
                "error": f"{type(error).__name__}: {error}"[:500],
            }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))), flush=True)
