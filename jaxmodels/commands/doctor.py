"""jaxmodels doctor: the devices and versions of this computer, what works on it, and how fast."""

from __future__ import annotations

import os
import re
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from jaxmodels.console import Console

ROUNDS = 7
SIDE = {"cpu": 2048}  # rows and columns of the multiplied matrices, by platform
OTHER_SIDE = 8192  # on other platforms
BYTES = 256 << 20  # size of the array that is read and written
PLUGINS = {"jax[cuda13]": "jax-cuda13-plugin", "jax[tpu]": "libtpu"}  # what these requirements install
BUSY = 0.3  # processes waiting for each core, above which measurements are not reliable
# Environment variables that change what JAX computes, or how fast.
TRAPS = (
    "XLA_FLAGS",
    "JAX_DISABLE_JIT",
    "JAX_DEBUG_NANS",
    "JAX_ENABLE_X64",
    "JAX_DEFAULT_MATMUL_PRECISION",
    "JAX_PLATFORMS",
)


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """What is examined."""

    speed: Literal["on", "off"] = "on"
    """Whether matrix products and memory are measured, which takes some seconds."""
    folder: str = "runs"
    """Where runs will be written."""


def doctor(
    *, speed: bool = DoctorOptions.speed == "on", folder: str | Path = DoctorOptions.folder
) -> dict[str, Any]:
    """{"error", "environment", "memory_bytes", "extras", "speed", "advice"} of this computer.

    The argument speed says whether to measure, which takes some seconds.

    error: why JAX finds no device, or ""; where there is an error, the rest describes the CPU.
    extras: the missing packages of each extra.
    speed: {"median", "least", "most", "unit"} of each measurement.
    advice: sentences that say what to change.
    """
    import jax

    from jaxmodels.commands.find_batch import available
    from jaxmodels.runs.environment import describe_environment

    error = ""
    try:
        jax.devices()
    except Exception as raised:  # whatever the plugin of the device raises
        error = (str(raised).strip() or f"{type(raised).__name__} of JAX without a message").splitlines()[0]
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
    """The packages of each extra that are not installed."""
    import importlib.metadata

    try:
        requirements = importlib.metadata.requires("jaxmodels") or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    missing: dict[str, list[str]] = {}
    for line in requirements:
        match = re.match(r"([\w.-]+(?:\[\w+\])?).*;.*extra\s*==\s*[\"']([\w-]+)[\"']", line)
        if match and not match[1].startswith("jaxmodels"):
            package, absent = PLUGINS.get(match[1], match[1]), missing.setdefault(match[2], [])
            if not _installed(package):
                absent.append(package)
    return missing


def _installed(package: str) -> bool:
    import importlib.metadata

    try:
        importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def measured(device: Any) -> dict[str, dict[str, Any]]:
    """The speed of products of square matrices, and of reading and writing an array.

    Median, least and most of ROUNDS rounds, each of which waits for the device.
    """
    import jax
    import jax.numpy as jnp

    n = SIDE.get(device.platform, OTHER_SIDE)
    rates = {}
    for dtype in ("float32", "bfloat16"):
        x = jax.device_put(jnp.ones((n, n), dtype), device)
        product = partial(jnp.matmul, x, x)
        rates[f"products of {n} x {n}, {dtype}"] = _rate(product, 2 * n**3 / 1e12, "TFLOP/s")
    y = jax.device_put(jnp.ones(BYTES // 4, jnp.float32), device)
    rates[f"{BYTES >> 20} MiB read and written"] = _rate(lambda: y + 1, 2 * BYTES / 1e9, "GB/s")
    return rates


def _rate(run: Callable[[], Any], work: float, unit: str) -> dict[str, Any]:
    import jax

    program, rates = jax.jit(run), []
    jax.block_until_ready(program())
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        jax.block_until_ready(program())
        rates.append(work / (time.perf_counter() - begun))
    return {"median": statistics.median(rates), "least": min(rates), "most": max(rates), "unit": unit}


def advice(platform: str, load: float, folder: Path) -> list[str]:
    """What to change before a long run, or before measurements are relied on."""
    from jaxmodels.analysis.memory import in_bytes

    sentences = []
    nvidia = shutil.which("nvidia-smi") is not None or Path("/dev/nvidia0").exists()
    for there, what, extra, package in (
        (nvidia, "an NVIDIA GPU", "cuda", "jax-cuda13-plugin"),
        (Path("/dev/accel0").exists(), "a TPU", "tpu", "libtpu"),
    ):
        if platform == "cpu" and there:
            do = "look at its driver" if _installed(package) else f"pip install 'jaxmodels[{extra}]'"
            sentences.append(
                f"there is {what} that JAX does not use: {do}, and at JAX_PLATFORMS and what JAX says when "
                "it starts"
            )
    sentences += [
        f"{name}={os.environ[name]} changes what JAX does: unset it unless it is meant"
        for name in TRAPS
        if os.environ.get(name)
    ]
    if load > BUSY:
        sentences.append(
            f"other programs keep the cores busy ({load:.1f} processes wait for each): measure again when "
            "they are done"
        )
    parent = folder if folder.exists() else folder.absolute().parent
    if not os.access(parent, os.W_OK):
        sentences.append(f"{parent} cannot be written: runs need --folder, or other permissions")
    elif shutil.disk_usage(parent).free < 5 << 30:
        sentences.append(
            f"{parent} has {in_bytes(shutil.disk_usage(parent).free)} left: checkpoints may not fit"
        )
    return sentences


def show(found: dict[str, Any], console: Console) -> None:
    """Prints what doctor found."""
    from jaxmodels.analysis.memory import in_bytes

    environment = found["environment"]
    devices = environment["devices"]
    if found["error"]:
        console.say(f"JAX finds no device; the rest describes the CPU: {found['error']}", "bold red")
    each = "free" if devices["platform"] == "cpu" else "each"
    console.say(f"{devices['count']} x {devices['kind']}, {in_bytes(found['memory_bytes'])} {each}", "bold")
    console.say(f"{environment['system']}, {environment['cores']} cores, Python {environment['python']}")
    console.say(", ".join(f"{name} {version}" for name, version in environment["versions"].items()))
    ready = [name for name, missing in found["extras"].items() if not missing]
    console.say(f"\nextras installed: {', '.join(ready) or 'none'}")
    absent = [f"{name} ({', '.join(missing)})" for name, missing in found["extras"].items() if missing]
    if absent:
        console.say(f"not installed: {', '.join(absent)}; pip install 'jaxmodels[NAME]'", "dim")
    if found["speed"]:
        console.say()

        def spread(x):
            return f"{x['least']:.3g} to {x['most']:.3g}"

        rows = [[what, f"{x['median']:.3g} {x['unit']}", spread(x)] for what, x in found["speed"].items()]
        console.table("", ["measured", "median", f"of {ROUNDS} rounds"], rows)
    console.say()
    for sentence in found["advice"] or ["nothing to change"]:
        console.say(sentence, "yellow" if found["advice"] else "green")
