"""All that one accelerator is asked, within nine minutes and without a network; see accelerator.sh.

Each part runs in a process of its own within what is left of the time; the record is written after each, so
that whatever ends the whole leaves what was measured. Parts, the cheap ones first:

attention  cuDNN's and Pallas's kernels, and attention in blocks, against the definition: values and gradients
sweep      MLPs as one program, 64 and 2,048, against one alone
plan       `jaxmodels plan` beside memory and time of the same step
suite      `jaxmodels bench` in bfloat16
pmap       two cases of the suite under pmap, beside jit

Then the goals, each with its value and whether it is reached; a goal for another device, or of a part that
did not finish, has no value. --quick measures tiny sizes anywhere, which says that the parts run, no more.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
SECONDS, QUICK_SECONDS = 540, 600
PAIRS = ("mlp", "gpt2_small")  # measured under pmap too
# By what they need: sizes that --quick replaces with tiny ones.
SUITE = (
    *("gpt2_small", "llama_1b", "resnet50", "vit_b16", "gpt2_xl", "bert_base", "mlp", "cnn"),
    *("lstm", "moe", "diffusion_unet", "sweep"),
)


def attention(quick: bool) -> dict[str, Any]:
    """The largest difference from the definition in float32, as a share of its largest value."""
    import jax
    import jax.numpy as jnp

    from jaxmodels.layers import attention_kernels, blockwise_attention
    from jaxmodels.layers.attention import reference
    from jaxmodels.layers.attention_mask import AttentionMask

    B, T, H, D = (1, 64, 2, 32) if quick else (2, 1024, 8, 64)
    mask, scale = AttentionMask(causal=True), D**-0.5
    q, k, v, dy = (jax.random.normal(jax.random.key(n), (B, T, H, D), jnp.float32) for n in range(4))
    platform = jax.default_backend()

    def pallas(q, k, v, mask, scale):
        kernel = importlib.import_module("jax.experimental.pallas.ops.gpu.attention")
        return kernel.mha(q, k, v, None, sm_scale=scale, causal=True, interpret=platform == "cpu")

    ways = {"blockwise": blockwise_attention.blockwise, "pallas": pallas}
    if platform == "gpu":
        ways["cudnn"] = attention_kernels.cudnn
    if platform == "tpu":
        ways["pallas"] = attention_kernels.tpu

    def both(way, dtype):
        def value(q, k, v):
            return way(q.astype(dtype), k.astype(dtype), v.astype(dtype), mask, scale).astype(jnp.float32)

        y, back = jax.vjp(value, q, k, v)
        return dict(zip(("value", "dq", "dk", "dv"), (y, *back(dy)), strict=True))

    expected = jax.jit(lambda: both(reference, jnp.float32))()
    found: dict[str, Any] = {}
    for name, way in ways.items():
        try:
            got = jax.jit(lambda way=way: both(way, jnp.bfloat16))()
            found[name] = {
                part: float(jnp.abs(got[part] - x).max() / jnp.abs(x).max()) for part, x in expected.items()
            }
        except Exception as error:  # a kernel that this device or version has not
            found[name] = {"error": f"{type(error).__name__}: {error}"[:300]}
    return {"shape": [B, T, H, D], "type": "bfloat16", "difference": found}


def sweep(quick: bool) -> dict[str, Any]:
    """Rows a second of members that are trained as one program, over those of one alone."""
    import jax

    from jaxmodels.bench.programs import programs
    from jaxmodels.bench.suite import _table
    from jaxmodels.models.mlp import MLP
    from jaxmodels.parallel.mesh import make_mesh

    mesh = make_mesh("data=1", jax.devices()[:1])
    seconds: dict[int, float] = {}
    for members in (1, 64, 256 if quick else 2048):
        workload = _table(MLP((10, 10), 2), "MLP 10-10-10-2", 10, 128, 2, members=members)
        program = next(programs(workload, mesh, "jit", "float32"))
        times = []
        for _ in range(6 if quick else 200):
            start = time.perf_counter()
            program.run()
            times.append(time.perf_counter() - start)
        seconds[members] = statistics.median(times[2:])
    return {"step_s": seconds, "times_one": {n: n * seconds[1] / s for n, s in seconds.items()}}


def plan(quick: bool) -> dict[str, Any]:
    """A forecast, and the same step measured: memory as devices tell it, time as the median of steps."""
    import jax
    import plan_accuracy

    import jaxmodels
    from jaxmodels import step
    from jaxmodels.parallel.compile import compile_step
    from jaxmodels.parallel.mesh import make_mesh
    from jaxmodels.state import abstract_state, initial

    knobs: dict[str, Any] = {"length": 1024, "batch": 8}
    if quick:
        knobs = {"size": "tiny", "length": 64, "batch": 1}
    device = jax.devices()[0]
    target = "cpu:1" if device.platform == "cpu" else f"{_kind(device.device_kind)}-1"
    precision = "float32" if quick else "bfloat16"
    file = plan_accuracy.__file__
    told = jaxmodels.plan(file, on=target, mesh="data=1", precision=precision, **knobs)["forecast"]
    experiment = plan_accuracy.build(plan_accuracy.Config(**knobs))
    mesh = make_mesh("data=1", [device])
    _, shardings = abstract_state(experiment, mesh)
    dtype = None if precision == "float32" else jax.numpy.bfloat16
    one = step.make_step(experiment.task, experiment.optimizer, precision=dtype)
    batch = experiment.train.rows(0, 0, experiment.train.batch)
    jitted = compile_step(lambda s, _, b: one(s, b), "jit", mesh, shardings, leading=0)
    state = jax.jit(lambda: initial(experiment), out_shardings=shardings)()
    times = []
    for _ in range(3 if quick else 20):
        start = time.perf_counter()
        state, _ = jitted(state, {}, batch)
        jax.block_until_ready(state)
        times.append(time.perf_counter() - start)
    used = (device.memory_stats() or {}).get("peak_bytes_in_use")
    seconds = statistics.median(times[1:])
    forecast = knobs["batch"] * knobs["length"] / told["tokens_per_s"] if told.get("tokens_per_s") else None
    return {
        "target": target,
        "knobs": knobs,
        "bytes": {"forecast": told["device_bytes"]["used"], "measured": used},
        "seconds": {"forecast": forecast, "measured": seconds},
    }


def _kind(name: str) -> str:
    from jaxmodels.bench.peaks import KINDS

    return next((kind for part, kind in KINDS.items() if part in name.lower()), "h200")


def suite(quick: bool, names: tuple[str, ...] = SUITE, compile: str = "jit") -> dict[str, Any]:
    """The suite's record; prints it anew after each case, as the time may end between two."""
    from jaxmodels.commands.bench import bench

    record: dict[str, Any] = {}
    precision = "float32" if quick else "bfloat16"
    for name in names[:1] if quick else names:
        made = bench([name], quick=quick, compile=compile, precision=precision, devices=1)
        record = made | {
            "results": record.get("results", []) + made["results"],
            "errors": record.get("errors", {}) | made["errors"],
        }
        print(json.dumps(record), flush=True)
    return record


def pmap(quick: bool) -> dict[str, Any]:
    """As suite, of PAIRS, under pmap."""
    return suite(quick, PAIRS, "pmap")


PARTS = {"attention": attention, "sweep": sweep, "plan": plan, "suite": suite, "pmap": pmap}


def goals(parts: dict[str, Any], quick: bool) -> list[dict[str, Any]]:
    """Each goal with its value, None where it was not measured or where --quick measured something else."""
    from measure import check

    def of(case: str, program: str, field: str) -> float | None:
        for result in parts.get("suite", {}).get("results", []):
            if (result["case"], result["program"], result["size"]) == (case, program, "full"):
                return result.get(field)
        return None

    def times(members: int) -> float | None:
        return parts.get("sweep", {}).get("times_one", {}).get(str(members))

    def off(what: str) -> float | None:
        pair = parts.get("plan", {}).get(what, {})
        forecast, measured = pair.get("forecast"), pair.get("measured")
        return abs(forecast / measured - 1) if forecast and measured else None

    def difference(name: str) -> float | None:
        found = parts.get("attention", {}).get("difference", {}).get(name, {})
        return max(found.values()) if found and "error" not in found else None

    def pmap_over_jit(case: str) -> float | None:
        both = []
        for part in ("pmap", "suite"):
            for result in parts.get(part, {}).get("results", []):
                if (result["case"], result["program"]) == (case, "training"):
                    both.append(result["median_ms"])
                    break
        return both[0] / both[1] if len(both) == 2 else None

    mfu = "mfu_of_datasheet"
    listed = [
        check("GPT-2 small, MFU", of("gpt2_small", "training", mfu), least=0.55),
        check("Llama 1B, MFU", of("llama_1b", "training", mfu), least=0.6),
        check("ResNet-50, images a second", of("resnet50", "training", "images_per_s"), least=3500),
        check("ViT-B/16, MFU", of("vit_b16", "training", mfu), least=0.5),
        check(
            "GPT-2 XL, generation, bandwidth", of("gpt2_xl", "inference", "bandwidth_of_datasheet"), least=0.7
        ),
        check("64 MLPs as one program, times one", None if quick else times(64), least=40),
        check("2,048 MLPs as one program, times one", None if quick else times(2048), least=500),
        check("plan, memory off by", None if quick else off("bytes"), most=0.1),
        check("plan, time off by", None if quick else off("seconds"), most=0.25),
    ]
    listed += [
        check(f"attention by {name}, largest difference", difference(name), most=0.03)
        for name in ("blockwise", "cudnn", "pallas")
    ]
    return listed + [
        check(f"{case}, step under pmap over jit", None if quick else pmap_over_jit(case), most=1.05)
        for case in PAIRS
    ]


def run(name: str, quick: bool, seconds: float) -> dict[str, Any]:
    """A part in a process of its own: the last line of JSON that it printed, and why it ended early."""
    command = [sys.executable, __file__, "--part", name, *(["--quick"] if quick else [])]
    error = None
    try:
        done = subprocess.run(command, capture_output=True, timeout=max(1, seconds))
        out = done.stdout
        if done.returncode:
            error = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1][:300]
    except subprocess.TimeoutExpired as expired:
        out, error = expired.stdout or b"", f"took more than the {seconds:.0f} seconds that were left"
    lines = [line for line in out.decode(errors="replace").splitlines() if line.startswith("{")]
    return (json.loads(lines[-1]) if lines else {}) | ({"error": error} if error else {})


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: whether the parts run")
    parser.add_argument("--json", default="accelerator.json", help="the record")
    parser.add_argument("--parts", default=",".join(PARTS), help="which parts, with commas")
    parser.add_argument("--part", default="", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.part:
        print(json.dumps(PARTS[wanted.part](wanted.quick)), flush=True)
        return 0
    import measure

    names = wanted.parts.split(",")
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"--parts: got {', '.join(unknown)}; expected some of {', '.join(PARTS)}")
    begun, limit = time.perf_counter(), QUICK_SECONDS if wanted.quick else SECONDS
    found: dict[str, Any] = {}
    for name in names:
        left = limit - (time.perf_counter() - begun)
        # pmap comes last and is short: something is left for it.
        found[name] = run(name, wanted.quick, left - 60 if name == "suite" and "pmap" in names else left)
        record = {
            "quick": wanted.quick,
            "machine": measure.machine(),
            "versions": measure.versions(),
            "seconds": time.perf_counter() - begun,
            "parts": found,
            "goals": goals(found, wanted.quick),
        }
        waiting = f"{wanted.json}.part"
        Path(waiting).write_text(json.dumps(record, indent=1))
        os.replace(waiting, wanted.json)
        measure.note(f"{name}: {found[name].get('error', 'done')}, {record['seconds']:.0f} s")
    for goal in record["goals"]:
        limit_text = f"at most {goal['most']}" if "most" in goal else f"at least {goal['least']}"
        measure.note(f"{measure.STATUS[goal['pass']]} {goal['check']}: {goal['value']} ({limit_text})")
    return 1 if any("error" in part for part in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
