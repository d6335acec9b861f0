"""The watch over steps that do not come."""

from __future__ import annotations

import time

import pytest

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
