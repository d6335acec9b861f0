"""The time of training, without what is paused."""

from __future__ import annotations

import time

import pytest

from jaxmodels.training.clock import Clock

pytestmark = pytest.mark.fast


def test_what_is_paused_is_left_out_once(monkeypatch):
    times = iter((100.0, 110.0, 115.0, 116.0))
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    clock = Clock()
    clock.start()
    with clock.paused():
        pass
    clock.completed(2)
    assert (clock.seconds, clock.seconds_per_step) == (11.0, 5.5)


def test_a_pause_within_a_pause_is_refused_and_the_next_one_is_not():
    clock = Clock()
    with pytest.raises(RuntimeError, match="got a pause within a pause"), clock.paused(), clock.paused():
        pass
    with clock.paused():
        pass
