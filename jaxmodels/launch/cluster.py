"""Whether this process is one of several that train together, told from its options or its environment alone.

Imports nothing heavy: it is asked before anything else is done. The others are found by an address that was
given, or by JAX's own detection, which is let loose only where the environment says that there is more than
one process.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

SLURM = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID")
METADATA = "computeMetadata/v1/instance/attributes/worker-network-endpoints"
LOST_AFTER = 20.0  # seconds


class Cluster(NamedTuple):
    """How this process finds the others: at an address.

    Where that is empty, by JAX's detection of this kind.
    """

    kind: str
    coordinator: str = ""
    process: int = -1
    processes: int = 0


def find(words: Sequence[str], environ: Mapping[str, str]) -> Cluster | None:
    """The cluster that a command line or the environment names; None for a process of its own."""
    got = {name: option(words, f"--{name}") for name in ("coordinator", "process", "processes")}
    if any(value is not None for value in got.values()):
        numbers = {name: _number(name, got[name]) for name in ("process", "processes")}
        return given(got["coordinator"] or "", numbers["process"], numbers["processes"])
    return detect(environ)


def given(coordinator: str, process: int, processes: int) -> Cluster | None:
    """The cluster of these three options, which are given together or not at all."""
    if not coordinator and process < 0 and not processes:
        return None
    if not re.fullmatch(r"\S+:\d+", coordinator) or not 0 <= process < processes:
        raise ValueError(
            f"got --coordinator {coordinator or '(absent)'} --process {process} --processes {processes}; "
            "expected all three: the address of process 0 as HOST:PORT, the same for all, this process's "
            "number from 0 on, and how many there are. For all on this computer, jaxmodels launch "
            "--processes N FILE gives them"
        )
    return Cluster("given", coordinator, process, processes) if processes > 1 else None


def detect(environ: Mapping[str, str]) -> Cluster | None:
    """What the environment says; the kinds are those that jax.distributed.initialize knows."""
    if all(
        name in environ for name in SLURM
    ):  # a batch script and salloc's shell have no step, so they are alone
        tasks = environ.get("SLURM_STEP_NUM_TASKS", environ["SLURM_NTASKS"])
        return Cluster("slurm") if tasks.isdigit() and int(tasks) > 1 else None
    if "OMPI_MCA_orte_hnp_uri" in environ:
        return Cluster("ompi") if int(environ.get("OMPI_COMM_WORLD_SIZE", "1")) > 1 else None
    hosts = environ.get("TPU_PROCESS_ADDRESSES") or environ.get("TPU_WORKER_HOSTNAMES") or ""
    if "," in hosts or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1:
        return Cluster("tpu")
    if hosts or "TPU_SKIP_MDS_QUERY" in environ:
        return None
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= {*environ} and importlib.util.find_spec(
        "kubernetes"
    ):
        return Cluster("k8s")  # how many there are, the Kubernetes API tells
    if _has_tpu() and "," in _endpoints(environ):
        return Cluster("tpu")
    return None


def _has_tpu() -> bool:
    chips = os.path.exists("/dev/accel0") or os.path.exists("/dev/vfio/0")
    return chips and importlib.util.find_spec("libtpu") is not None


def _endpoints(environ: Mapping[str, str]) -> str:
    """The hosts of a Cloud TPU slice, as its metadata server lists them; "" where there is none."""
    import urllib.request

    where = f"http://{environ.get('GCE_METADATA_IP', 'metadata.google.internal')}/{METADATA}"
    asked = urllib.request.Request(where, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(asked, timeout=2) as answer:
            return answer.read().decode()
    except OSError:
        return ""


def option(words: Sequence[str], name: str) -> str | None:
    """The value of an option in a command line, as --name VALUE or --name=VALUE; None where it is absent."""
    for i, word in enumerate(words):
        if word == name:
            return words[i + 1] if i + 1 < len(words) else ""
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


def _number(name: str, text: str | None) -> int:
    if text is None:
        return -1 if name == "process" else 0
    if not re.fullmatch(r"-?\d+", text):
        raise ValueError(f"--{name}: got {text}; expected a whole number. Correct it")
    return int(text)
