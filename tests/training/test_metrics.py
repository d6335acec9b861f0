"""Metrics: what is added, what is written, and that no tracker can harm a run."""

from __future__ import annotations

import io
import json
import math
import os
import threading

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.task import Mean, Task
from jaxmodels.training import metrics
from jaxmodels.training.metrics import Log, MeanAccumulator, json_lines, pack, truncate

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


# Lines


def test_every_line_is_a_json_object_even_where_a_value_is_not_finite(tmp_path):
    write = json_lines(tmp_path / "metrics.jsonl")
    write(1, {"loss": 0.5})
    write(2, {"loss": math.nan, "rate": math.inf})
    lines = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / "metrics.jsonl").read_text().splitlines()
    ]
    assert lines == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None, "rate": None}]


def test_numbers_come_back_bit_for_bit(tmp_path):
    values = {str(i): float(x) for i, x in enumerate(np.random.default_rng(0).normal(size=100))}
    json_lines(tmp_path / "metrics.jsonl")(1, values)
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 1, **values}


def test_lines_after_the_restored_step_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for step in (5, 10, 10, 15):
        json_lines(path)(step, {"loss": 1.0})
    truncate(path, 10)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [5, 10, 10]


@pytest.mark.parametrize("cut", [1, 10, 20])
def test_a_last_line_cut_short_is_dropped(tmp_path, cut):
    path = tmp_path / "metrics.jsonl"
    for step in (5, 10):
        json_lines(path)(step, {"loss": 1.0})
    path.write_text(path.read_text()[:-cut])
    truncate(path, 10)
    assert path.read_text() == '{"step": 5, "loss": 1.0}\n'


def test_lines_that_are_no_metrics_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 1.0}\n[]\n\x00\x00\x00\n{"loss": 2.0}\n{"step": 2}\n')
    truncate(path, 10)
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n{"step": 2}\n'


def test_bytes_that_are_no_text_do_not_stop_a_resume(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "loss": 1.0}\n\xff\xfe\n')
    truncate(path, 10)
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n'


@pytest.mark.parametrize("fails", ["open", "write"])
def test_lines_that_found_no_room_are_written_with_the_next(tmp_path, monkeypatch, fails):
    path, said = tmp_path / "metrics.jsonl", []
    write = json_lines(path, said.append)
    write(1, {"loss": 1.0})

    class Full(io.FileIO):
        """A disk with room for ten bytes more."""

        def write(self, text):
            return super().write(text[:10])

    def full(path, *_, **__):
        if fails == "open":
            raise OSError(28, "No space left on device")
        return opened(path)

    opened = metrics.open_appending
    monkeypatch.setattr(metrics, "open_appending", full)
    monkeypatch.setattr(os, "fdopen", lambda handle, *_, **__: Full(handle, "a"))
    write(2, {"loss": 0.5})
    write(3, {"loss": 0.25})
    monkeypatch.undo()
    assert path.read_text() == '{"step": 1, "loss": 1.0}\n'
    write(4, {"loss": 0.125})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2, 3, 4]
    assert len(said) == 1
    assert "metrics.jsonl cannot be written (No space left on device)" in said[0]


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
