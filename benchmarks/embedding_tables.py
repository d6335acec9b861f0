"""How the time of a training step grows with the rows of an embedding table: dense updates, and lazy ones.

DLRM with one large table of 8 columns, Adam, batches of 256, on one CPU device. Lazy steps touch the rows of
the batch alone (jaxmodels/training/lazy_step.py); dense ones all rows of the table and its two moments.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import measure
import numpy as np

from jaxmodels import optim
from jaxmodels.models.dlrm import DLRM
from jaxmodels.optim.lazy import adam_rows, lazy
from jaxmodels.step import init, make_step
from jaxmodels.tasks.clicks import clicks
from jaxmodels.tasks.gathered import gathered
from jaxmodels.training.lazy_step import lazy_step

B, STEPS = 256, 20


def stepper(rows: int, way: str) -> Callable[[], float]:
    """Seconds of a step, over STEPS of them."""
    task = clicks(DLRM((rows, 1000), 8, (16,), (16,)))
    random = np.random.default_rng(0)
    batches = [
        {
            "ids": np.stack([random.integers(0, rows, B), random.integers(0, 1000, B)], 1).astype(np.int32),
            "numbers": random.normal(size=(B, 4)).astype(np.float32),
            "label": random.integers(0, 2, B).astype(np.float32),
            "weight": np.ones(B, np.float32),
        }
        for _ in range(STEPS)
    ]
    if way == "lazy":
        optimizer = lazy(optim.adam(1e-3), adam_rows(1e-3))
        step = lazy_step(gathered)(task, optimizer)
    else:
        optimizer = optim.adam(1e-3)
        step = make_step(task, optimizer)
    state = [jax.jit(lambda batch: init(task, optimizer, 0, batch))(batches[0])]
    step = jax.jit(step, donate_argnums=0)
    state[0] = jax.block_until_ready(step(state[0], batches[0])[0])

    def call() -> float:
        begun = time.perf_counter()
        for batch in batches:
            state[0], _ = step(state[0], batch)
        jax.block_until_ready(state[0])
        return (time.perf_counter() - begun) / STEPS

    return call


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=0, help="5 or more; 1 when quick")
    parser.add_argument(
        "--patience", type=int, default=3, help="times as many rounds where the machine is busy"
    )
    parser.add_argument("--quick", action="store_true", help="a smoke test: small tables, one round")
    args = parser.parse_args()
    rounds, patience = args.rounds or (1 if args.quick else 5), 1 if args.quick else args.patience
    sizes = (1_000, 10_000) if args.quick else (10_000, 100_000, 1_000_000, 10_000_000)
    made = {f"lazy {rows}": stepper(rows, "lazy") for rows in sizes}
    made |= {f"dense {rows}": stepper(rows, "dense") for rows in sizes[:-1]}
    got = measure.interleaved(made, rounds, patience)
    growth = measure.ratio(got[f"lazy {sizes[-1]}"], got[f"lazy {sizes[0]}"])
    gain = measure.ratio(got[f"dense {sizes[-2]}"], got[f"lazy {sizes[-2]}"])
    cases = {
        "tables": {
            "us": {name: measure.microseconds(rounds) for name, rounds in got.items()},
            "largest_over_smallest": growth,
            "dense_over_lazy": gain,
            "foreign": measure.foreign(got),
        }
    }
    checks = [
        measure.check(
            f"lazy step with {sizes[-1]:,} rows / with {sizes[0]:,}",
            None if args.quick else growth["median"],
            most=2.0,
        ),
        measure.check(
            f"dense step / lazy step with {sizes[-2]:,} rows",
            None if args.quick else gain["median"],
            least=5.0,
        ),
    ]
    measure.report("embedding_tables", args.quick, cases, checks)


if __name__ == "__main__":
    main()
