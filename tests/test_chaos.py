"""A few random faults upon a run, as tests/chaos.py makes hundreds of them."""

from __future__ import annotations

import chaos
import pytest
from instances import first

from jaxmodels.training import runner


@pytest.mark.parametrize("seed", first(1, [0, 1, 2]))
def test_after_random_faults_a_run_ends_with_the_same_bits_or_refuses_in_words(seed, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "WORTH", runner.WORTH)  # both are set by chaos.train
    monkeypatch.setattr(runner, "measure_k", runner.measure_k)
    storm = chaos.Chaos(tmp_path, seed, live=("term", "full disk"))
    for faults in (2, 2, 2):
        storm.round(faults)
    assert storm.report["rounds that ended bit for bit"] == 3


def test_after_a_kill_it_does_too(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "WORTH", runner.WORTH)
    monkeypatch.setattr(runner, "measure_k", runner.measure_k)
    monkeypatch.setattr(chaos, "RESTING", ())
    storm = chaos.Chaos(tmp_path, 0, live=("kill",))
    storm.round(1)
    assert storm.report["kill"] == 1
