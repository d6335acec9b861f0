"""Threads of XLA's CPU runtime, each kept on a processor of its own.

They sleep between operations. After a rest Linux may let all of them share one processor for some
milliseconds, and a short prompt that ends a rest takes twice its time (33 ms in place of 18 for 96 tokens
of a Llama of 6 x 384 on a virtual machine of two processors). JAXMODELS_PIN=0 leaves the threads where they
are.
"""

from __future__ import annotations

import os
from pathlib import Path

import jax

SWITCH = "JAXMODELS_PIN"
TASKS = Path("/proc/self/task")
WORKER = "tf_XLAEigen"  # as Linux, which keeps 15 characters, shows the names of the runtime's threads


def pin() -> int:
    """Keeps each thread on its own processor, where there are as many; the number of threads."""
    if os.environ.get(SWITCH) == "0" or jax.default_backend() != "cpu" or not TASKS.is_dir():
        return 0
    processors = sorted(os.sched_getaffinity(0))
    workers = [task for task in TASKS.iterdir() if (task / "comm").read_text().startswith(WORKER)]
    if len(workers) != len(processors):
        return 0
    for worker, processor in zip(workers, processors, strict=True):
        os.sched_setaffinity(int(worker.name), {processor})
    return len(workers)
