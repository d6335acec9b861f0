"""jaxmodels template: a script that trains an experiment's file on a cluster."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jaxmodels.launch import templates


@dataclass(frozen=True, kw_only=True)
class TemplateOptions:
    """What the cluster is asked for."""

    nodes: int = 1
    """Computers; for a Cloud TPU slice its type decides."""
    gpus: int = 0
    """GPUs of each computer. Slurm starts a process for each, Kubernetes one for all GPUs of a pod."""
    cores: int = 8
    """CPU cores of each process."""
    memory: str = "32G"
    """Memory of each computer."""
    hours: int = 24
    """Hours after which the cluster stops the job; it saves before."""
    folder: str = ""
    """The run's folder, on a file system that all computers share."""
    image: str = "IMAGE"
    """Kubernetes: the container image, with jaxmodels in it."""
    claim: str = "runs"
    """Kubernetes: the volume claim (ReadWriteMany) that is mounted at /work."""
    accelerator: str = "v5litepod-16"
    """Cloud TPU: the slice's type."""
    zone: str = "us-central1-a"
    """Cloud TPU: where."""


def template(
    kind: str,
    file: str | Path,
    words: Sequence[str] = (),
    *,
    nodes: int = TemplateOptions.nodes,
    gpus: int = TemplateOptions.gpus,
    cores: int = TemplateOptions.cores,
    memory: str = TemplateOptions.memory,
    hours: int = TemplateOptions.hours,
    folder: str = TemplateOptions.folder,
    image: str = TemplateOptions.image,
    claim: str = TemplateOptions.claim,
    accelerator: str = TemplateOptions.accelerator,
    zone: str = TemplateOptions.zone,
) -> str:
    """The script of this kind, "slurm", "jobset" or "tpu"; see TemplateOptions for the rest.

    words: train's options and the file's knobs, as on the command line.
    """
    if kind not in ("slurm", "jobset", "tpu"):
        raise ValueError(f"template: got {kind}; expected slurm, jobset or tpu. Give one of them")
    if min(nodes, cores, hours) < 1 or gpus < 0:
        raise ValueError(
            f"template {kind}: got nodes={nodes}, cores={cores}, hours={hours}, gpus={gpus}; expected at "
            "least one of each, and 0 GPUs or more. Change these options"
        )
    name = re.sub(r"[^a-z0-9]+", "-", Path(file).stem.lower()).strip("-") or "run"
    folder = folder or f"runs/{Path(file).stem}"
    train = shlex.join(["jaxmodels", "train", str(file), "--folder", folder, *words])
    if kind == "slurm":
        return templates.slurm(name, train, nodes, gpus, cores, memory, hours)
    if kind == "jobset":
        return templates.jobset(name, train, nodes, gpus, cores, memory, hours, image, claim)
    return templates.tpu(name, train, hours, accelerator, zone)
