"""Energy, where NVIDIA's driver tells (the package nvidia-ml-py)."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from jax.sharding import Mesh


class Meter:
    """Joules that the GPUs of a mesh take up while this is entered; None where the driver does not tell."""

    joules: float | None = None
    seconds = 0.0

    def __init__(self, mesh: Mesh):
        self._ids = [d.local_hardware_id for d in mesh.local_devices if d.platform in ("gpu", "cuda")]
        self._nvml = _nvml() if self._ids else None

    def __enter__(self) -> Meter:
        self._begun, self._before = time.perf_counter(), self._read()
        return self

    def __exit__(self, *_: object) -> None:
        after = self._read()
        self.seconds = time.perf_counter() - self._begun
        if self._before is not None and after is not None:
            self.joules = after - self._before

    def _read(self) -> float | None:
        if self._nvml is None:
            return None
        with contextlib.suppress(self._nvml.NVMLError):
            handles = [self._nvml.nvmlDeviceGetHandleByIndex(n) for n in self._ids]
            return sum(self._nvml.nvmlDeviceGetTotalEnergyConsumption(h) for h in handles) / 1e3
        return None


def _nvml() -> Any:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
