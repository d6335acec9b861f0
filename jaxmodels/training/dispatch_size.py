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
from jaxmodels.training.schedule import choose_k


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
