"""How many steps make one dispatch: measured, where a run has no number of its own."""

from __future__ import annotations

import math
import time

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.parallel import processes
from jaxmodels.pipeline import Pipeline
from jaxmodels.step import State
from jaxmodels.training.batches import is_bucketed
from jaxmodels.training.programs import Programs

SHORT = 0.025  # seconds; a step at least this long is worth a dispatch of its own
LONG = 0.05  # seconds that a dispatch of many steps should take
CHUNK_BYTES = 64 << 20  # of the batches of one dispatch


def measure_k(programs: Programs, state: State, events: tuple[int, ...]) -> int:
    """Steps in one dispatch, from the time of single steps; 1 where many in one program are not faster.

    They can be far slower: XLA has its fast convolutions on CPUs for the outermost program alone, not in a
    scan.
    """
    data = programs.experiment.train
    if is_bucketed(data):
        return 1
    single = seconds(programs, 1, state)
    k = choose_k(single, batch_bytes(data), events)
    return k if k == 1 or seconds(programs, k, state) < k * single else 1


def seconds(programs: Programs, k: int, state: State) -> float:
    """The time of a dispatch of k steps, on a copy of the state, as process 0 has measured it."""
    programs.lay_data(k)
    program, inputs = programs.get(k), programs.inputs(range(k))
    scratch, times = jax.tree.map(jnp.copy, state), []
    for _ in range(4):
        begun = time.perf_counter()
        scratch, _ = program(scratch, programs.dataset, inputs)
        jax.block_until_ready(scratch)
        times.append(time.perf_counter() - begun)
    return processes.on_first_process(lambda: min(times[1:]))


def batch_bytes(data: Pipeline) -> int:
    """Bytes of a batch, as its pipeline gives it."""
    sizes = [math.prod(shape) * np.dtype(dtype).itemsize for shape, dtype in data.spec.values()]
    return data.batch * sum(sizes)


def choose_k(step_s: float, batch_bytes: int, events: tuple[int, ...]) -> int:
    """How many steps of step_s seconds make one dispatch: 1 for long ones, else about LONG seconds of them.

    A divisor of the distance between events is preferred, so that no single steps remain.
    """
    if step_s >= SHORT:
        return 1
    most = max(1, min(int(LONG / max(step_s, 1e-6)), CHUNK_BYTES // max(1, batch_bytes), 1000))
    common = math.gcd(*events) if events else 0
    divisors = [d for d in range(1, most + 1) if common and common % d == 0]
    return divisors[-1] if divisors and divisors[-1] * 4 >= most else most
