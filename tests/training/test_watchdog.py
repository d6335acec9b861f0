"""The watch over steps that do not come."""

from __future__ import annotations

import dataclasses
import os
import time

import pytest
from files import bare_jax

from jaxmodels import Evaluation, Options
from jaxmodels.training import runner
from jaxmodels.training.watchdog import Watchdog

pytestmark = pytest.mark.fast


class Told(Watchdog):
    """One that remembers instead of ending the process."""

    ended = False

    def _end(self) -> None:
        self.ended = True


@pytest.mark.slow
def test_time_without_progress_ends_it():
    with Told(0.1) as stall:
        stall.progress()
        time.sleep(0.6)
        assert stall.ended


@pytest.mark.slow
def test_progress_keeps_it_going_and_what_is_paused_does_not_count():
    with Told(0.4) as stall:
        time.sleep(0.8)  # nothing is awaited yet
        with stall.paused():
            stall.progress()
            time.sleep(0.8)
        for _ in range(10):
            time.sleep(0.05)
            stall.progress()
        assert not stall.ended


def test_0_never_does():
    with Told(0.0) as stall:
        stall.progress()
        time.sleep(0.3)
        assert not stall.ended


@pytest.mark.slow
def test_an_evaluation_after_the_last_step_is_no_stall(monkeypatch):
    """Of a run that had come to its end before it was evaluated."""
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    experiment = bare_jax.build(bare_jax.Config(steps=0))

    def score(predictions, batches):
        time.sleep(0.6)
        return {"slow": 1.0}

    [(name, data)] = experiment.evals.items()
    slow = Evaluation(data, predict=lambda params, extra, batch: batch["weight"], score=score)
    experiment = dataclasses.replace(experiment, evals={name: slow})
    result = runner.run(experiment, Options(mesh="data=1", stall_after=0.2))
    assert (result.metrics[f"{name}/slow"], ended) == (1.0, [])
