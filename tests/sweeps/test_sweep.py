"""Members against runs made alone: their logs, evaluations, states, and how they go on after a stop."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from instances import first

import jaxmodels
from jaxmodels import cli, train
from jaxmodels.commands.sweep import sweep
from jaxmodels.options import Options
from jaxmodels.parallel import mesh
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.runs import experiment_file
from jaxmodels.sweeps import lockstep, orders, programs
from jaxmodels.sweeps.extract import extract_member
from jaxmodels.sweeps.grouping import Group

FILE = str(Path(__file__).parents[1] / "files" / "swept.py")
fast = pytest.mark.fast


def lines(path: Path) -> list[dict]:
    parsed = map(json.loads, path.read_text().splitlines())
    return [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in parsed]


def assert_is_the_run_alone(swept: Path, name: str, tmp_path: Path, **knobs):
    alone = tmp_path / "alone"
    train(FILE, folder=str(alone), **knobs)
    ours, theirs = lines(swept / "members" / name / "metrics.jsonl"), lines(alone / "metrics.jsonl")
    assert [line.keys() for line in ours] == [line.keys() for line in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=1e-5, abs=1e-6)
    taken = extract_member(swept, name, tmp_path / "taken")
    (_, mine, n), (_, other, m) = jaxmodels.open_run(taken), jaxmodels.open_run(alone)
    assert n == m
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        mine._replace(key=jax.random.key_data(mine.key)),
        other._replace(key=jax.random.key_data(other.key)),
    )


@pytest.fixture(params=first(2, ["together", "side by side", "in turn"]))
def how(request, monkeypatch):
    """All in one program; one after the other; or two at a time, each on a device of its own."""
    way = {
        "together": lambda members: (members, 2),
        "in turn": lambda _: (1, 3),
        "side by side": lambda _: (2, 3),
    }
    monkeypatch.setattr(
        programs.GroupPrograms, "choose", lambda self, configs, *_: way[request.param](len(configs))
    )
    monkeypatch.setattr(mesh, "default_sizes", lambda devices: {"data": 2})
    return request.param


@pytest.mark.slow
@fast
def test_every_member_is_the_run_made_alone(how, tmp_path):
    table = sweep(FILE, folder=tmp_path / "sweep", lr=[0.1, 0.3], smoothing=[0.1], seed=[0, 1])
    assert len(table["members"]) == 4
    assert_is_the_run_alone(tmp_path / "sweep", "lr=0.3-seed=1", tmp_path, lr=0.3, smoothing=0.1, seed=1)


@fast
@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        (lambda size, k: 1e-4 * size**0.9 + 1e-4 / k, 8),  # many small ones: a few on each core
        (lambda size, k: 1e-4 * size**1.1 + 1e-4 / k, 2),
        (
            lambda size, k: 1e-2 * (1 if size == 1 else 0.8 * size),
            2,
        ),  # a long step: a core each, or all cores for one
        (lambda size, k: 1e-2 * (1 if size == 1 else 1.2 * size), 1),
    ],
)
def test_on_cpus_the_fastest_number_of_members_is_taken(monkeypatch, seconds, chosen):
    file = experiment_file.load(FILE)
    configs = [file.config(lr=0.1 * (i + 1)) for i in range(8)]
    mesh = make_mesh("data=2", jax.devices()[:2])
    of = programs.GroupPrograms(file, configs, Group(tuple(range(8)), ("lr",)), Options(), mesh)
    monkeypatch.setattr(programs.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(of, "start", lambda *_: None)
    monkeypatch.setattr(of, "time_dispatch", lambda state, size, k, batches: k * seconds(size, k))
    assert of.choose(configs, orders.TrialBatches([file.build(c) for c in configs]), (100,))[0] == chosen


@pytest.mark.slow
@fast
@pytest.mark.parametrize(("name", "single"), [("digits_mlp", False), ("digits_cnn", True)])
def test_a_single_step_is_tried_only_where_convolutions_are_faster_outside_a_loop(monkeypatch, name, single):
    file = experiment_file.load(Path(__file__).parents[2] / "experiments" / f"{name}.py")
    configs, mesh = (
        [file.config(lr=1e-3), file.config(lr=3e-3)],
        make_mesh("data=2", jax.devices()[:2]),
    )
    of = programs.GroupPrograms(file, configs, Group((0, 1), ("lr",)), Options(), mesh)
    tried: list[int] = []
    monkeypatch.setattr(programs.os, "cpu_count", lambda: 2)
    monkeypatch.setattr(of, "start", lambda *_: None)
    monkeypatch.setattr(of, "time_dispatch", lambda state, size, k, batches: tried.append(k) or 1e-3 * k)
    of.choose(configs, orders.TrialBatches([file.build(c) for c in configs]), (300,))
    assert (1 in tried) == single


@pytest.mark.slow
@fast
@pytest.mark.parametrize("seeds", first(1, [[0, 1, 2], [0, 1]]))
def test_a_program_takes_some_of_the_orders_or_one_twice(seeds, tmp_path, monkeypatch):
    """Programs of two members whose data orders are as many as the members, but not one for each."""
    monkeypatch.setattr(programs.GroupPrograms, "choose", lambda self, configs, batches, events: (2, 2))
    sweep(FILE, folder=tmp_path / "sweep", seed=seeds, lr=[0.1, 0.3])
    assert_is_the_run_alone(tmp_path / "sweep", "seed=0-lr=0.3", tmp_path, lr=0.3, seed=0)


def test_knobs_of_structure_and_adam_too(tmp_path):
    sweep(FILE, folder=tmp_path / "sweep", width="4,8", lr="0.1", decay="0.0,0.1", kind="adam")
    assert_is_the_run_alone(
        tmp_path / "sweep", "width=4-decay=0.1", tmp_path, width=4, lr=0.1, decay=0.1, kind="adam"
    )


@pytest.mark.slow
@fast
def test_members_that_diverge_are_frozen_and_counted_and_harm_no_other(how, tmp_path):
    table = sweep(FILE, folder=tmp_path / "sweep", lr=[0.1, 1e38], seed=[0, 1])
    assert table["diverged"] == 2
    assert [m["exit"].partition(":")[0] for m in table["members"]] == ["complete"] * 2 + ["NotFinite"] * 2
    assert [s["diverged"] for s in table["settings"]] == [0, 2]
    assert_is_the_run_alone(tmp_path / "sweep", "lr=0.1-seed=1", tmp_path, lr=0.1, seed=1)


@pytest.mark.slow
@fast
def test_added_values_train_the_new_members_alone(tmp_path):
    first = sweep(FILE, folder=tmp_path, lr=[0.1, 0.2])
    begun = {p: p.stat().st_mtime_ns for p in tmp_path.glob("members/*/result.json")}
    second = sweep(FILE, folder=tmp_path, lr=[0.1, 0.2, 0.3])
    assert all(p.stat().st_mtime_ns == at for p, at in begun.items())
    assert [m["metrics"] for m in second["members"][:2]] == [m["metrics"] for m in first["members"]]
    assert len(second["members"]) == 3 and second["members"][2]["exit"] == "complete"


def test_a_signal_saves_and_the_same_call_goes_on_to_the_same_end(how, tmp_path, monkeypatch):
    whole = sweep(FILE, folder=tmp_path / "whole", lr=[0.1, 0.2], seed=[0, 1])
    own = lockstep.Lockstep.record
    calls = []

    def record(self, states, start, metrics):
        own(self, states, start, metrics)
        calls.append(start)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(lockstep.Lockstep, "record", record)
    with pytest.raises(lockstep.Stopped):
        sweep(FILE, folder=tmp_path / "cut", lr=[0.1, 0.2], seed=[0, 1])
    monkeypatch.setattr(lockstep.Lockstep, "record", own)
    cut = sweep(FILE, folder=tmp_path / "cut", lr=[0.1, 0.2], seed=[0, 1])
    for a, b in zip(whole["members"], cut["members"], strict=True):
        assert a["metrics"] == pytest.approx(b["metrics"], rel=1e-6)
        logs = [
            lines(tmp_path / which / "members" / a["name"] / "metrics.jsonl") for which in ("whole", "cut")
        ]
        assert all(x == pytest.approx(y, rel=1e-6) for x, y in zip(*logs, strict=True))


@pytest.mark.slow
@fast
def test_a_member_that_was_taken_out_is_gone_on_with_by_train(tmp_path, monkeypatch):
    monkeypatch.setattr(lockstep.Lockstep, "finish", lambda self: None)
    own = lockstep.Lockstep.run
    monkeypatch.setattr(lockstep.Lockstep, "run", lambda self: own(self, 8))
    sweep(FILE, folder=tmp_path / "sweep", lr=[0.1, 0.2], seed=[0, 1])
    taken = extract_member(tmp_path / "sweep", "lr=0.2-seed=1", tmp_path / "taken")
    result = train(FILE, folder=str(taken), lr=0.2, seed=1)
    alone = train(FILE, folder=str(tmp_path / "alone"), lr=0.2, seed=1)
    assert result.metrics == pytest.approx(alone.metrics, rel=1e-5)
    assert lines(taken / "metrics.jsonl")[-1] == pytest.approx(
        lines(tmp_path / "alone" / "metrics.jsonl")[-1], rel=1e-5
    )


def test_what_is_drawn_is_trained_with_every_seed(tmp_path):
    table = sweep(FILE, folder=tmp_path, search="halton", trials=3, lr="0.01..0.5", width="4,8", seed="0..1")
    assert len(table["members"]) == 6
    assert len({(m["knobs"]["lr"], m["knobs"]["width"]) for m in table["members"]}) == 3
    assert all(len(s["values"]) == 2 for s in table["settings"])


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("words", "what"),
    [
        ([], "got one value of every knob"),
        (["--lr", "0.1..0.2"], "expected values for a grid"),
        (["--lr", "0.1,x"], "got x; expected float"),
        (["--lr", "0.1,0.2", "--metric", "test/acc"], "Give one of scored/accuracy"),
        (["--lr", "0.1,0.2", "--trials", "4"], "a grid, which has all combinations"),
        (["--search", "random", "--lr", "0.1..0.2"], "expected 1 or more"),
        (["--lr"], "got no value"),
    ],
)
def test_bad_input_is_one_sentence(words, what, tmp_path, capsys):
    assert cli.main(["sweep", FILE, "--folder", str(tmp_path / "sweep"), *words]) == cli.BAD_INPUT
    assert what in capsys.readouterr().err


@pytest.mark.slow
@fast
def test_the_command_prints_a_table_and_json(tmp_path, capsys):
    assert (
        cli.main(["sweep", FILE, "--lr", "0.1,0.3", "--seed=0..2", "--folder", str(tmp_path / "s"), "--json"])
        == 0
    )
    out, err = capsys.readouterr()
    table = json.loads(out)
    assert table["metric"] == "test/accuracy" and len(table["settings"]) == 2
    assert "mean and 95% interval" in err and "paired t-tests" in table["verdict"] + "paired t-tests"
    assert (
        cli.main(["sweep", str(tmp_path / "s"), "--take", "lr=0.1-seed=0", "--folder", str(tmp_path / "run")])
        == 0
    )
    assert cli.main(["evaluate", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert (
        cli.main(["sweep", str(tmp_path / "s"), "--take", "lr=7", "--folder", str(tmp_path / "x")])
        == cli.BAD_INPUT
    )
    assert "lr=0.1-seed=0" in capsys.readouterr().err


@pytest.mark.slow
@fast
def test_another_experiment_does_not_go_on_in_a_sweeps_folder(tmp_path):
    sweep(FILE, folder=tmp_path, lr=[0.1, 0.2])
    with pytest.raises(ValueError, match="width: 8 there, 4 here"):
        sweep(FILE, folder=tmp_path, lr=[0.1, 0.2], width=4)
