"""Compilers of hardware that is not here: libtpu's and CUDA's, and the CPU's for simulated devices.

Each gives the devices of a target to lower for. Their environment must be set before JAX is imported; see
`environment`.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from typing import Any

from jaxmodels.planning.targets import Target

EXTRAS = {"tpu": ("libtpu", "plan-tpu"), "gpu": ("jax_plugins.xla_cuda13", "plan-cuda")}


def environment(target: Target) -> dict[str, str]:
    """The environment of a process before it imports JAX: it searches for no real accelerator.

    libtpu ends the process where XLA_FLAGS has a flag that it does not know, such as the CPU's; its own flags
    are in LIBTPU_INIT_ARGS.
    """
    return {
        **({"XLA_FLAGS": ""} if target.device.platform == "tpu" else {}),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(target.devices),
        "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_ACCELERATOR_TYPE": "v5p-8",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TPU_STDERR_LOG_LEVEL": "3",
    }


def missing(target: Target) -> str | None:
    """The extra that installs the target's own compiler, where that is absent; "" where no extra does."""
    if not target.device.compiled:
        return ""
    package, extra = EXTRAS.get(target.device.platform, (None, ""))
    if package is None:
        return None
    try:
        return None if importlib.util.find_spec(package) else extra
    except ModuleNotFoundError:
        return extra


def version(platform: str) -> str:
    """Versions of what compiles for "tpu", "gpu" or "cpu"."""
    names = {"tpu": ["libtpu"], "gpu": ["jax-cuda13-plugin", "nvidia-cudnn-cu13"]}.get(platform, [])
    return ", ".join([f"{name} {importlib.metadata.version(name)}" for name in ["jaxlib", *names]])


def devices(target: Target) -> list[Any]:
    """The target's devices, for its own compiler; programs for them compile and cannot run."""
    from jax.experimental import topologies

    if target.device.platform == "tpu":
        slices = {"num_slices": target.slices} if target.slices > 1 else {}
        description = topologies.get_topology_desc(target.topology, platform="tpu", **slices)
    else:
        description = topologies.get_topology_desc(
            target.device.name, platform="cuda", target_config=target.device.config, topology=target.topology
        )
    assert len(description.devices) == target.devices, (len(description.devices), target.devices)
    return list(description.devices)


def options(target: Target) -> dict[str, Any]:
    """Options of the target's compiler: without a GPU it cannot choose kernels by timing them."""
    return {"xla_gpu_autotune_level": 0} if target.device.platform == "gpu" else {}
