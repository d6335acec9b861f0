"""Halving, Hyperband and populations."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jaxmodels import train
from jaxmodels.commands.sweep import sweep
from jaxmodels.sweeps import lockstep, programs
from jaxmodels.sweeps.halving import brackets, rungs
from jaxmodels.sweeps.lockstep import Member

FILE = str(Path(__file__).parents[1] / "files" / "swept.py")
RATES = [0.001, 0.003, 0.01, 0.03, 0.05, 0.1, 0.2, 0.3, 1e38]
fast = pytest.mark.fast


@pytest.fixture(autouse=True)
def together_by_two_steps(monkeypatch):
    monkeypatch.setattr(
        programs.GroupPrograms, "choose", lambda self, configs, batches, events: (len(configs), 2)
    )


def stop_the_second_run(monkeypatch):
    """A signal comes before the second time that a loop runs; the third runs again."""
    own, calls = lockstep.Lockstep.run, []

    def run(self, until=None):
        calls.append(until)
        if len(calls) == 2:
            raise lockstep.Stopped(15, until)
        return own(self, until)

    monkeypatch.setattr(lockstep.Lockstep, "run", run)


@fast
def test_of_nine_settings_three_and_then_one_go_on():
    assert rungs(90, 9, 2) == [(10, 3), (30, 1)]
    assert rungs(90, 9, 0) == []
    assert rungs(2, 9, 2) == []  # there is no room for a rung


@fast
def test_brackets_hold_every_member_once_with_fewer_and_fewer_rungs():
    members = [Member(str(i), {"lr": i // 2, "seed": i % 2}, None) for i in range(54)]
    found = brackets(members, "seed")
    assert [depth for _, depth in found] == [3, 2, 1, 0]
    assert sorted(m.name for of, _ in found for m in of) == sorted(m.name for m in members)
    assert all(
        {m.knobs["seed"] for m in of if m.knobs["lr"] == of[0].knobs["lr"]} == {0, 1} for of, _ in found
    )


def test_halving_stops_the_worse_and_who_goes_on_is_the_run_alone(tmp_path):
    table = sweep(FILE, folder=tmp_path / "s", search="halving", metric="test/loss", lr=RATES, seed=[0, 1])
    ends = {m["name"]: m["exit"] for m in table["members"]}
    assert sorted(ends.values()).count("complete") == 2
    assert [s["stopped"] for s in table["settings"]] == [None, 4, 4, *[1] * 6]
    best = next(m for m in table["members"] if m["exit"] == "complete" and m["knobs"]["seed"] == 1)
    alone = train(FILE, folder=str(tmp_path / "alone"), **best["knobs"])
    assert best["metrics"] == pytest.approx(alone.metrics, rel=1e-5)


def test_halving_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    rates = RATES[2:-1]
    whole = sweep(FILE, folder=tmp_path / "whole", search="halving", metric="test/loss", lr=rates, seed=[0])
    stop_the_second_run(monkeypatch)
    with pytest.raises(lockstep.Stopped):
        sweep(FILE, folder=tmp_path / "cut", search="halving", metric="test/loss", lr=rates, seed=[0])
    cut = sweep(FILE, folder=tmp_path / "cut", search="halving", metric="test/loss", lr=rates, seed=[0])
    assert [m["exit"] for m in cut["members"]] == [m["exit"] for m in whole["members"]]
    for a, b in zip(cut["members"], whole["members"], strict=True):
        assert a["metrics"] == pytest.approx(b["metrics"], rel=1e-5)


def test_hyperband_trains_its_last_bracket_to_the_end(tmp_path):
    table = sweep(
        FILE, folder=tmp_path, search="hyperband", metric="test/loss", trials=4, lr="0.01..0.3", seed=[0, 1]
    )
    assert len(table["members"]) == 8
    assert all(m["exit"] == "complete" or m["exit"].startswith("stopped at step") for m in table["members"])
    assert sum(m["exit"] == "complete" for m in table["members"]) >= 4


def test_a_population_takes_over_the_best_and_changes_its_knobs(tmp_path):
    table = sweep(
        FILE, folder=tmp_path, search="pbt", metric="test/loss", every=4, lr=[1e-5, 0.05, 0.1, 0.2], seed=[0]
    )
    worst = table["members"][0]
    assert worst["exit"] == "complete" and worst["history"]
    event = worst["history"][0]
    origin = next(m for m in table["members"] if m["name"] == event["from"])
    assert event["step"] == 4 and event["lr"] / origin["knobs"]["lr"] in (
        pytest.approx(0.8),
        pytest.approx(1.25),
    )
    assert worst["metrics"]["test/loss"] < 0.9  # with its own rate it learns nothing
    assert not origin.get("history")


def test_a_population_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    how = {"search": "pbt", "metric": "test/loss", "every": 4, "lr": [1e-5, 0.05, 0.1, 0.2], "seed": [0]}
    whole = sweep(FILE, folder=tmp_path / "whole", **how)
    stop_the_second_run(monkeypatch)
    with pytest.raises(lockstep.Stopped):
        sweep(FILE, folder=tmp_path / "cut", **how)
    cut = sweep(FILE, folder=tmp_path / "cut", **how)
    for a, b in zip(cut["members"], whole["members"], strict=True):
        assert a.get("history") == b.get("history")
        assert a["metrics"] == pytest.approx(b["metrics"], rel=1e-5)


@pytest.mark.slow
@fast
def test_a_population_of_two_structures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="share one program"):
        sweep(FILE, folder=tmp_path, search="pbt", lr=[0.1, 0.2], width=[4, 8])


def test_narrowed_members_keep_states_logs_and_sums(tmp_path):
    sweep(FILE, folder=tmp_path, search="halving", metric="test/loss", lr=[0.001, 0.1, 0.2], seed=[0])
    loops = sorted(tmp_path.glob("together/*/members.json"))
    assert len(loops) == 2 and len(json.loads(loops[1].read_text())["members"]) == 1
    name = json.loads(loops[1].read_text())["members"][0]
    steps = [
        json.loads(line)["step"]
        for line in (tmp_path / "members" / name / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps) and steps[-1] == 12
