"""jaxmodels doctor: what this computer has, what works on it, and how fast."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.console import Console
from jaxmodels.diagnose import in_bytes
from jaxmodels.find_batch import available
from jaxmodels.folder import describe_environment

ROUNDS = 7
SIDE = {"cpu": 2048}  # of the matrices; of other devices:
OTHER_SIDE = 8192
BYTES = 256 << 20  # that are read, and written
BRINGS = {"jax[cuda13]": "jax-cuda13-plugin", "jax[tpu]": "libtpu"}
BUSY = 0.3  # processes that wait for each core, from which on figures are not to be trusted
# Variables that change what JAX computes, or how fast.
TRAPS = ("XLA_FLAGS", "JAX_DISABLE_JIT", "JAX_DEBUG_NANS", "JAX_ENABLE_X64", "JAX_DEFAULT_MATMUL_PRECISION", "JAX_PLATFORMS")


def doctor(*, speed: bool = True, folder: str | Path = "runs") -> dict[str, Any]:
    """{"environment", "memory_bytes", "extras", "speed", "advice"}; speed: whether to measure, some seconds.

    extras: by name the packages that are missing. speed: by what was measured {"median", "least", "most", "unit"}. advice:
    what should be changed, in sentences.
    """
    device = jax.devices()[0]
    load = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    return {
        "environment": describe_environment(),
        "memory_bytes": available(device, len(jax.devices())),
        "extras": extras(),
        "speed": measured(device) if speed else {},
        "advice": advice(device.platform, load, Path(folder)),
    }


def extras() -> dict[str, list[str]]:
    """Each extra of this package, with what of it is not installed."""
    try:
        wanted = importlib.metadata.requires("jaxmodels") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    found: dict[str, list[str]] = {}
    for line in wanted:
        match = re.match(r"([\w.-]+(?:\[\w+\])?).*;.*extra\s*==\s*[\"']([\w-]+)[\"']", line)
        if match and not match[1].startswith("jaxmodels"):
            package, missing = BRINGS.get(match[1], match[1]), found.setdefault(match[2], [])
            if not _installed(package):
                missing.append(package)
    return found


def _installed(package: str) -> bool:
    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def measured(device: Any) -> dict[str, dict[str, Any]]:
    """Products of square matrices, and an array that is read and written: medians of synchronised rounds, with spread."""
    n = SIDE.get(device.platform, OTHER_SIDE)
    found = {}
    for dtype in ("float32", "bfloat16"):
        x = jax.device_put(jnp.ones((n, n), dtype), device)
        found[f"products of {n} x {n}, {dtype}"] = _rate(partial(jnp.matmul, x, x), 2 * n**3 / 1e12, "TFLOP/s")
    y = jax.device_put(jnp.ones(BYTES // 4, jnp.float32), device)
    found[f"{BYTES >> 20} MiB read and written"] = _rate(lambda: y + 1, 2 * BYTES / 1e9, "GB/s")
    return found


def _rate(run: Callable[[], Any], work: float, unit: str) -> dict[str, Any]:
    program, rates = jax.jit(run), []
    jax.block_until_ready(program())
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        jax.block_until_ready(program())
        rates.append(work / (time.perf_counter() - begun))
    return {"median": statistics.median(rates), "least": min(rates), "most": max(rates), "unit": unit}


def advice(platform: str, load: float, folder: Path) -> list[str]:
    """What should be changed before a long run, or before figures are believed."""
    said = []
    if platform == "cpu" and (shutil.which("nvidia-smi") or Path("/dev/nvidia0").exists()):
        said.append("there is an NVIDIA GPU that JAX does not use: pip install 'jaxmodels[cuda]', and look at JAX_PLATFORMS")
    if platform == "cpu" and Path("/dev/accel0").exists():
        said.append("there is a TPU that JAX does not use: pip install 'jaxmodels[tpu]', and look at JAX_PLATFORMS")
    said += [
        f"{name}={os.environ[name]} changes what JAX does: unset it unless it is meant"
        for name in TRAPS
        if os.environ.get(name)
    ]
    if load > BUSY:
        said.append(
            f"other programs keep the cores busy ({load:.0%} of them are waited for): measure again when they are done"
        )
    place = folder if folder.exists() else folder.absolute().parent
    if not os.access(place, os.W_OK):
        said.append(f"{place} cannot be written: runs need --folder, or other permissions")
    elif shutil.disk_usage(place).free < 5 << 30:
        said.append(f"{place} has {in_bytes(shutil.disk_usage(place).free)} left: checkpoints may not fit")
    return said


def show(found: dict[str, Any], console: Console) -> None:
    """The same for people."""
    of = found["environment"]
    devices = of["devices"]
    console.say(
        f"{devices['count']} x {devices['kind']} ({devices['platform']}), {in_bytes(found['memory_bytes'])} each", "bold"
    )
    console.say(f"{platform.platform()}, {of['cores']} cores, Python {of['python']}")
    console.say(", ".join(f"{name} {version}" for name, version in of["versions"].items()))
    ready = [name for name, missing in found["extras"].items() if not missing]
    console.say(f"\nextras installed: {', '.join(ready) or 'none'}")
    for name, missing in found["extras"].items():
        if missing:
            console.say(f"  {name}: {', '.join(missing)} missing, pip install 'jaxmodels[{name}]'", "dim")
    if found["speed"]:
        console.say()
        spread = lambda x: f"{x['least']:.3g} to {x['most']:.3g}"  # noqa: E731
        rows = [[what, f"{x['median']:.3g} {x['unit']}", spread(x)] for what, x in found["speed"].items()]
        console.table("", ["measured", "median", f"of {ROUNDS} rounds"], rows)
    console.say()
    for line in found["advice"] or ["nothing to change"]:
        console.say(line, "yellow" if found["advice"] else "green")
