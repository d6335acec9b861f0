"""Vendors' figures of accelerators: for one chip, dense, without sparsity; bytes and FLOP per second.

Sources: Google: docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p, /v6e, /tpu7x (their "bidirectional ICI
bandwidth per chip" is all links, both ways). NVIDIA: the data sheets of A100 80 GB SXM, H100 SXM, H200 SXM,
DGX B200 and GB200 NVL72, without sparsity; memory as the driver reports it, and the rest of `config`, as
XLA's own descriptions of these devices have it (openxla/xla, xla/backends/gpu/target_config/specs). Network:
the NIC that the vendor's reference system gives each GPU (400 Gb/s; 200 Gb/s for A100), or the data centre
network per chip of Google's pages.
"""

from __future__ import annotations

from typing import Any, NamedTuple

GiB = 1 << 30


class Device(NamedTuple):
    """One chip.

    memory in bytes. peak by type: operations per second of the matrix unit. link: bytes per second in one
    direction of one ICI link, or of all of a GPU's NVLinks. network: the same between slices or hosts, for
    one chip. torus: axes of the ICI torus, 0 where a switch connects a host's GPUs. host: chips of a host, or
    of an NVLink domain. pod: most chips of a slice.
    """

    name: str
    vendor: str
    memory: int
    bandwidth: float
    peak: dict[str, float]
    link: float
    network: float
    torus: int
    host: int
    pod: int
    cores: int = 1  # for each chip, in the vendor's names of slices
    devices: int = 1  # for each chip, in JAX
    config: str = ""  # of a GPU: XLA's description
    compiled: bool = True  # whether its compiler has the same devices without hardware as JAX has with it

    @property
    def platform(self) -> str:
        """JAX's name of it."""
        return {"google": "tpu", "nvidia": "gpu"}.get(self.vendor, "cpu")


def _nvidia(
    name: str,
    memory: int,
    bandwidth: float,
    peak: tuple[float, float, float, float],
    link: float,
    network: float,
    host: int,
    pod: int,
    config: str,
) -> Device:
    """peak: of bfloat16, int8, float8 and float32 (as TF32)."""
    by_type = dict(zip(("bfloat16", "int8", "float8", "float32"), peak, strict=True))
    return Device(name, "nvidia", memory, bandwidth, by_type, link, network, 0, host, pod, config=config)


def _config(
    cores: int,
    capability: str,
    bandwidth: float,
    memory: int,
    shared: int,
    l2: int,
    clock: float,
    fpus: int = 128,
) -> str:
    """XLA's description of a GPU (GpuTargetConfigProto, as text)."""
    return f"""gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  core_count: {cores} fpus_per_core: {fpus}
  shared_memory_per_block: 49152 shared_memory_per_core: {shared}
  shared_memory_per_block_optin: {shared - 1024}
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: {bandwidth:.0f} device_memory_size: {memory} l2_cache_size: {l2} clock_rate_ghz: {clock}
  cuda_compute_capability {{ {capability} }} registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA" dnn_version_info {{ major: 9 minor: 10 }} runtime_version {{ major: 13 }}
device_description_str: "GPU"
"""


def _tpu(
    name: str, memory: int, bandwidth: float, bf16: float, int8: float, fp8: float, ici: float, **rest: Any
) -> Device:
    """ici: bytes per second of all links, both ways.

    JAX rounds the operands of float32 products to bfloat16 by default, so their peak is the same.
    """
    links = 2 * rest["torus"]
    network = {"v4": 3.125e9, "v5e": 3.125e9, "v5p": 6.25e9, "v6e": 12.5e9, "tpu7x": 12.5e9}[name]
    peak = {"bfloat16": bf16, "int8": int8, "float8": fp8, "float32": bf16}
    compiled = name != "v4"
    link = ici / links / 2
    return Device(name, "google", memory, bandwidth, peak, link, network, **rest, compiled=compiled)


DEVICES = {
    d.name: d
    for d in (
        _tpu("v4", 32 * GiB, 1228e9, 275e12, 275e12, 275e12, 600e9, torus=3, host=4, pod=4096, cores=2),
        _tpu("v5e", 16 * GiB, 819e9, 197e12, 393e12, 197e12, 400e9, torus=2, host=4, pod=256),
        _tpu("v5p", 95 * GiB, 2765e9, 459e12, 918e12, 459e12, 1200e9, torus=3, host=4, pod=6144, cores=2),
        _tpu("v6e", 32 * GiB, 1640e9, 918e12, 1836e12, 918e12, 800e9, torus=2, host=4, pod=256),
        _tpu(
            "tpu7x", 192 * GiB, 7380e9, 2307e12, 4614e12, 4614e12, 1200e9,
            torus=3, host=4, pod=9216, cores=2, devices=2,
        ),
        _nvidia(
            "a100", 85100068864, 2039e9, (312e12, 624e12, 312e12, 156e12), 300e9, 25e9, 8, 4096,
            _config(108, "major: 8", 2039e9, 85100068864, 167936, 41943040, 1.41, 64),
        ),
        _nvidia(
            "h100", 84929347584, 3350e9, (989e12, 1979e12, 1979e12, 495e12), 450e9, 50e9, 8, 32768,
            _config(132, "major: 9", 3352e9, 84929347584, 233472, 52428800, 1.98),
        ),
        _nvidia(
            "h200", 151397597184, 4800e9, (989e12, 1979e12, 1979e12, 495e12), 450e9, 50e9, 8, 32768,
            _config(132, "major: 9", 4800e9, 151397597184, 233472, 52428800, 1.98),
        ),
        _nvidia(
            "b200", 191514411008, 7672e9, (2250e12, 4500e12, 4500e12, 1125e12), 900e9, 50e9, 8, 32768,
            _config(148, "major: 10", 7672e9, 191514411008, 233472, 132644864, 1.965),
        ),
        _nvidia(
            "gb200", 197897748480, 7928e9, (2500e12, 5000e12, 5000e12, 1250e12), 900e9, 50e9, 72, 32768,
            _config(152, "major: 10", 7928e9, 197897748480, 233472, 135528448, 2.062),
        ),
        Device("cpu", "", 0, 0.0, {}, 0.0, 0.0, 0, 1, 4096),
    )
}  # fmt: skip
