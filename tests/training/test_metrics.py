"""Metrics: what is added, what is written, and that no tracker can harm a run."""

from __future__ import annotations

import math
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.task import Mean, Task
from jaxmodels.training.log import Log
from jaxmodels.training.metrics import MeanAccumulator, pack

pytestmark = pytest.mark.fast

TASK = Task(None, None, None)


def mean(total: float, weight: float) -> Mean:
    return Mean(jnp.float32(total), jnp.float32(weight))


# Sums


def test_means_are_added_as_sums_and_weights_and_not_as_means():
    sums = MeanAccumulator(["loss"])
    for total, weight in ((10.0, 1.0), (0.0, 9.0)):
        sums.add(np.asarray(pack({"loss": mean(total, weight)})))
    assert sums.finish(TASK) == {"loss": 1.0}


def test_of_the_learning_rate_the_last_value_counts():
    sums = MeanAccumulator(["loss", "learning_rate"])
    for rate in (0.1, 0.3):
        sums.add(np.asarray(pack({"loss": mean(1, 1), "learning_rate": mean(rate, 1)})))
    assert sums.finish(TASK)["learning_rate"] == pytest.approx(0.3)


def test_many_small_numbers_are_added_in_float64():
    sums = MeanAccumulator(["loss"])
    row = np.asarray(pack({"loss": mean(0.1, 1)}))
    for _ in range(20_000):
        sums.add(row)
    assert sums.finish(TASK)["loss"] == pytest.approx(float(np.float32(0.1)), rel=1e-12)


def test_a_mean_over_nothing_is_nan():
    assert math.isnan(MeanAccumulator(["loss"]).finish(TASK)["loss"])


def test_the_task_derives_its_own_metrics_from_finished_means():
    sums = MeanAccumulator(["loss"])
    for loss in (1.0, 3.0):
        sums.add(np.asarray(pack({"loss": mean(loss, 1)})))
    task = TASK._replace(finish=lambda metrics: {**metrics, "twice": 2 * metrics["loss"]})
    assert sums.finish(task) == {"loss": 2.0, "twice": 4.0}


# Log


def test_trackers_get_everything_in_order():
    got: list = []
    log = Log([lambda step, values: got.append((step, values))], pytest.fail)
    for step in range(100):
        log(step, {"loss": float(step)})
    log.close()
    assert got == [(step, {"loss": float(step)}) for step in range(100)]


def test_a_tracker_that_fails_is_named_and_left_out_and_the_others_go_on():
    got, said, calls = [], [], []

    def broken(step, values):
        calls.append(step)
        raise ConnectionError("the server is gone")

    log = Log([broken, lambda step, values: got.append(step)], said.append)
    for step in range(3):
        log(step, {})
    log.close()
    assert (got, calls) == ([0, 1, 2], [0])
    assert len(said) == 1
    assert "broken" in said[0] and "step 0" in said[0] and "the server is gone" in said[0]


def test_a_tracker_that_hangs_keeps_no_other_waiting_nor_the_run():
    got, go_on = [], threading.Event()
    log = Log([lambda step, values: got.append(step), lambda step, values: go_on.wait(10)], pytest.fail)
    for step in range(3):
        log(step, {})
    log.flush_first()
    assert got == [0, 1, 2]
    go_on.set()
    log.close()


def test_a_tracker_that_hangs_at_the_end_is_left_behind_and_named():
    said, go_on = [], threading.Event()

    def hung(step, values):
        go_on.wait(10)

    log = Log([lambda step, values: None, hung], said.append)
    log(1, {})
    log.close(patience=0.05)
    assert said == ["tracker hung has not taken its values within 0.05 s; the rest of them are lost to it"]
    go_on.set()
