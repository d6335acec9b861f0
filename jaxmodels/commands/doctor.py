"""jaxmodels doctor: what this computer has, what works on it, and how fast."""

from __future__ import annotations

import importlib.metadata
import os
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

from jaxmodels.analysis.nonfinite import in_bytes
from jaxmodels.commands.find_batch import available
from jaxmodels.console import Console
from jaxmodels.runs.folder import describe_environment

ROUNDS = 7
SIDE = {"cpu": 2048}  # of the matrices; of other devices:
OTHER_SIDE = 8192
BYTES = 256 << 20  # that are read, and written
BRINGS = {"jax[cuda13]": "jax-cuda13-plugin", "jax[tpu]": "libtpu"}
BUSY = 0.3  # processes that wait for each core, from which on figures are not to be trusted
# Variables that change what JAX computes, or how fast.
TRAPS = (
    "XLA_FLAGS",
    "JAX_DISABLE_JIT",
    "JAX_DEBUG_NANS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_PLATFORMS",
)


def doctor(*, speed: bool = True, folder: str | Path = "runs") -> dict[str, Any]:
    """{"error", "environment", "memory_bytes", "extras", "speed", "advice"}; speed: whether to measure, some seconds.

    error: why JAX finds no device, "" where it does; the rest is then of the CPU. extras: by name the
    packages that are missing. speed: by what was measured {"median", "least", "most", "unit"}. advice: what
    should be changed, in sentences.
    """
    error = ""
    try:
        jax.devices()
    except Exception as raised:  # whatever the plugin of the device raises
        error = (str(raised).strip() or f"{type(raised).__name__} of JAX without words").splitlines()[0]
        jax.config.update("jax_platforms", "cpu")
    device = jax.devices()[0]
    load = os.getloadavg()[0] / (os.cpu_count() or 1) if hasattr(os, "getloadavg") else 0.0
    return {
        "error": error,
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
        found[f"products of {n} x {n}, {dtype}"] = _rate(
            partial(jnp.matmul, x, x), 2 * n**3 / 1e12, "TFLOP/s"
        )
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
    nvidia = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
    for there, what, extra, package in (
        (nvidia, "an NVIDIA GPU", "cuda", "jax-cuda13-plugin"),
        (Path("/dev/accel0").exists(), "a TPU", "tpu", "libtpu"),
    ):
        if platform == "cpu" and there:
            do = "look at its driver" if _installed(package) else f"pip install 'jaxmodels[{extra}]'"
            said.append(
                f"there is {what} that JAX does not use: {do}, and at JAX_PLATFORMS and what JAX says when it starts"
            )
    said += [
        f"{name}={os.environ[name]} changes what JAX does: unset it unless it is meant"
        for name in TRAPS
        if os.environ.get(name)
    ]
    if load > BUSY:
        said.append(
            f"other programs keep the cores busy ({load:.1f} want each): measure again when they are done"
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
    if found["error"]:
        console.say(f"JAX finds no device, what follows is of the CPU: {found['error']}", "bold red")
    each = "free" if devices["platform"] == "cpu" else "each"
    console.say(f"{devices['count']} x {devices['kind']}, {in_bytes(found['memory_bytes'])} {each}", "bold")
    console.say(f"{of['system']}, {of['cores']} cores, Python {of['python']}")
    console.say(", ".join(f"{name} {version}" for name, version in of["versions"].items()))
    ready = [name for name, missing in found["extras"].items() if not missing]
    console.say(f"\nextras installed: {', '.join(ready) or 'none'}")
    absent = [f"{name} ({', '.join(missing)})" for name, missing in found["extras"].items() if missing]
    if absent:
        console.say(f"not: {', '.join(absent)}; pip install 'jaxmodels[NAME]'", "dim")
    if found["speed"]:
        console.say()

        def spread(x):
            return f"{x['least']:.3g} to {x['most']:.3g}"

        rows = [[what, f"{x['median']:.3g} {x['unit']}", spread(x)] for what, x in found["speed"].items()]
        console.table("", ["measured", "median", f"of {ROUNDS} rounds"], rows)
    console.say()
    for line in found["advice"] or ["nothing to change"]:
        console.say(line, "yellow" if found["advice"] else "green")
