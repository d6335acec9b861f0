"""Where the threads of XLA's CPU runtime run."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os
import jax
import jax.numpy as jnp
from jaxmodels.serving import threads

jax.block_until_ready(jnp.ones((8, 8)) @ jnp.ones((8, 8)))
count = threads.pin()
found = [os.sched_getaffinity(int(task.name)) for task in threads.TASKS.iterdir()]
print(count, len(os.sched_getaffinity(0)), sum(len(cpus) == 1 for cpus in found))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Linux lets a thread be kept on a processor")
@pytest.mark.parametrize("switch", ["1", "0"])
def test_each_thread_of_the_runtime_has_a_processor_of_its_own_unless_told_otherwise(switch):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor")
    env = {**os.environ, "JAXMODELS_PIN": switch, "XLA_FLAGS": ""}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=env, capture_output=True, text=True, check=True)
    count, processors, kept = map(int, done.stdout.split())
    assert count == kept == (0 if switch == "0" else processors)
