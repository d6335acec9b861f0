"""How near `jaxmodels plan` comes: forecasts beside published runs, its memory beside what a CPU then takes.

Published: MaxText's table of optimized models (github.com/AI-Hypercomputer/maxtext,
docs/reference/models/tiering.md), which are not ours: they move some activations to the host, where a
forecast of ours computes them again. The part of the peak that roofline.REACHED names was chosen with these
rows in view, so they show its spread, no more.

Memory: a step of a small GPT-3 in one process, once planned for one simulated device and once run.

This file is also the experiment that is planned.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels import Experiment, optim, plan
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.models import gpt, llama
from jaxmodels.state import abstract_state, initial
from jaxmodels.tasks.language import next_token

SIZES: dict[str, Any] = {
    "tiny": partial(gpt.GPT, vocabulary=256, width=32, depth=2, heads=2),  # for accelerator.py --quick
    "gpt3-125m": gpt.gpt3_small,
    "llama2-70b": llama.llama2_70b,
    "llama3-8b": llama.llama3_8b,
    "llama3-70b": llama.llama3_70b,
    "llama3-405b": partial(llama.llama3, width=16384, depth=126, heads=128, key_heads=8, hidden_width=53248),
}

# machine, mesh, windows on each chip, knobs, published model FLOPs utilisation, tokens a second on each chip
PUBLISHED = {
    "Llama 2 70B, 512 v5p": (
        "v5p-512",
        "fsdp=512",
        4,
        {"size": "llama2-70b", "length": 4096, "remat": "dots"},
        0.654,
        692,
    ),
    "Llama 3.1 8B, 256 v6e": ("v6e-256", "fsdp=256", 4, {"size": "llama3-8b", "length": 8192}, 0.4546, 7207),
    "Llama 3.1 70B, 256 v6e": ("v6e-256", "fsdp=256", 5, {"size": "llama3-70b", "length": 8192}, 0.5033, 960),
    "Llama 3.1 405B, 256 v6e": (
        "v6e-256",
        "fsdp=64,tensor=4",
        1,
        {"size": "llama3-405b", "length": 8192},
        0.3855,
        123,
    ),
}


@dataclass(frozen=True, kw_only=True)
class Config:
    size: str = "gpt3-125m"
    length: int = 512
    batch: int = 2


def build(config: Config) -> Experiment:
    model = SIZES[config.size](length=config.length, remat="full")
    return Experiment(
        task=next_token(model),
        optimizer=optim.adamw(1e-4, b2=0.95, weight_decay=0.1, clip=1.0),
        train=WindowPipeline(
            np.zeros(1 << 20, np.uint16), length=config.length, batch=config.batch, stride=1, seed=0
        ),
        rules=model.rules(),
        steps=100,
    )


def published(name: str) -> dict[str, Any]:
    on, mesh, windows, knobs, mfu, rate = PUBLISHED[name]
    chips = int(on.partition("-")[2])
    planned = plan(__file__, on=on, mesh=mesh, compile="off", batch=windows * chips, **knobs)["forecast"]
    return {
        "mfu": {"forecast": planned["mfu"], "published": mfu},
        "tokens_per_s_of_a_chip": {"forecast": planned["tokens_per_s"] / chips, "published": rate},
        "forecast_over_published": planned["tokens_per_s"] / chips / rate,
        "bound": planned["bound"],
        "terms_s": planned["terms_s"],
    }


def planned_memory(knobs: dict[str, Any]) -> int:
    return plan(__file__, on="cpu:1", mesh="data=1", precision="float32", **knobs)["forecast"][
        "device_bytes"
    ]["used"]


def live_memory(knobs: dict[str, Any], remat: str) -> None:
    """Prints by how much the process grows at most from before there is a state to after two steps."""
    import jax

    from jaxmodels import step
    from jaxmodels.parallel.compile import compile_step
    from jaxmodels.parallel.mesh import make_mesh

    experiment = build(Config(**knobs))
    mesh = make_mesh("data=1")
    abstract, shardings = abstract_state(experiment, mesh)
    one = step.make_step(experiment.task, experiment.optimizer)
    batch = experiment.train.rows(0, 0, experiment.train.batch)
    jitted = compile_step(
        lambda state, _, batch: one(state, batch), "jit", mesh, shardings, leading=0, remat=remat
    )
    compiled = jitted.lower(abstract, {}, batch).compile()
    first = jax.jit(lambda: initial(experiment), out_shardings=shardings).lower().compile()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    state = first()
    for _ in range(2):
        state, _ = compiled(state, {}, batch)
    jax.block_until_ready(state)
    peak = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    grown = (
        int(peak[0].split()[1]) * 1024 if peak else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    print(grown - before)


def memory(knobs: dict[str, Any], remat: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--live", json.dumps([knobs, remat])]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    planned, live = planned_memory({**knobs, "remat": remat}), int(done.stdout.split()[-1])
    return {"bytes": {"planned": planned, "live": live}, "planned_over_live": planned / live}


def main() -> None:
    import measure

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a smoke test: memory of a small model alone")
    parser.add_argument("--live", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.live:
        live_memory(*json.loads(args.live))
        return
    cases, checks = {}, []
    for name in () if args.quick else PUBLISHED:
        measure.note(name)
        cases[name] = published(name)
        value = cases[name]["forecast_over_published"]
        checks.append(measure.check(f"{name}: forecast / published", value, most=1.25))
        checks.append(measure.check(f"{name}: forecast / published", value, least=0.8))
    for remat in ("none", "full"):
        name = f"memory of GPT-3 125M, remat {remat}"
        measure.note(name)
        cases[name] = memory({"length": 128 if args.quick else 512, "batch": 2 if args.quick else 8}, remat)
        value = None if args.quick else cases[name]["planned_over_live"]
        checks.append(measure.check(f"{name}: planned / live", value, most=1.15))
        checks.append(measure.check(f"{name}: planned / live", value, least=0.85))
    measure.report("plan_accuracy", args.quick, cases, checks)


if __name__ == "__main__":
    main()
