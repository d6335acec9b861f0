"""The benchmarks run and say what they found; their numbers are for a quiet machine, not for a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from instances import first

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SPREAD = {"median", "min", "max"}


def report(script: str, *options: str) -> dict:
    """The last line that a quick run prints."""
    command = [sys.executable, str(BENCHMARKS / script), "--quick", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["quick"] is True and line["cases"] and line["checks"]
    assert {"cpu", "cores", "xla_flags"} <= line["machine"].keys()
    assert {"python", "jax", "numpy", "keras", "torch", "commit"} <= line["versions"].keys()
    assert all(
        {"check", "value", "pass"} < check.keys() and {"most", "least"} & check.keys()
        for check in line["checks"]
    )
    assert line["pass"] is True
    return line


LARGER, TINY = ("digits", "mnist", "cnn", "gpt"), ("tiny-1000", "tiny-10000")


@pytest.mark.parametrize(("larger", "tiny"), first(0, [(LARGER[:1], TINY[:1]), (LARGER, TINY)]), ids=str)
def test_the_runners_overhead_is_measured_against_a_bare_loop_that_computes_the_same(larger, tiny):
    cases = report("runner_overhead.py", *(word for name in (*larger, *tiny) for word in ("--case", name)))[
        "cases"
    ]
    for name in larger:
        case = cases[name]
        assert (
            case["ratio"].keys()
            == SPREAD
            == case["step_us"]["runner"].keys()
            == case["step_us"]["bare"].keys()
        )
        assert case["agreement"] <= 0.01
    for name in tiny:
        of = cases[name]
        assert all(of["steps_per_s"][way]["median"] > 0 for way in ("runner", "bare", "scan"))
        absent_peers_are_null_with_a_reason(of, of["steps_per_s"], {"keras": "keras", "torch": "torch"})


def test_the_input_is_measured_against_numpy_and_pytorch():
    cases = report("input.py")["cases"]
    for name in ("floats", "bytes"):
        assert cases[name]["pipeline_is_faster"]["numpy"].keys() == SPREAD
        ways = {"torch": "torch", "torch_getitems": "torch"}
        absent_peers_are_null_with_a_reason(cases[name], cases[name]["examples_per_s"], ways)
    assert cases["windows"]["pipeline_is_faster"].keys() == {"numpy", "numpy_slices"}
    assert cases["feed"]["feed_is_faster"].keys() == {"numpy", "pipeline"}
    assert cases["indices"]["us_of_one_batch"].keys() == {"of_1000", "of_10000", "of_1000000"}


def absent_peers_are_null_with_a_reason(case: dict, values: dict, peers: dict[str, str]) -> None:
    for name, package in peers.items():
        if find_spec(package):
            assert values[name].keys() == SPREAD
        else:
            assert values[name] is None and package in case["absent"][name]


@pytest.mark.parametrize(
    ("made", "kept"),
    [
        ([0.0, 0.0, 0.0, 0.0], [0, 1]),
        ([0.9, 0.0, 0.5, 0.0], [1, 3]),
        ([0.9, 0.3, 0.5, 0.2], [3, 1]),
    ],
    ids=["quiet", "disturbed now and then", "never quiet"],
)
def test_of_all_rounds_the_least_disturbed_count(monkeypatch, made, kept):
    monkeypatch.syspath_prepend(BENCHMARKS)
    measure = __import__("measure")
    load = iter(made)

    class Watch:
        def __enter__(self):
            self.foreign = next(load)
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(measure, "Watch", Watch)
    rounds = iter(range(len(made)))
    got = measure.interleaved({"case": lambda: 1.0 + next(rounds)}, 2, 2)
    assert [r.seconds - 1 for r in got["case"]] == kept


@pytest.mark.thorough  # as test_the_input_is_measured: that the script runs and prints what it found
def test_convolutions_are_measured_by_shape_and_in_whole_steps():
    cases = report("convolution.py")["cases"]
    assert {True, False} == {case["taken"] for case in cases.values() if "taken" in case}
    assert all(case["times_faster"].keys() == SPREAD for case in cases.values())


@pytest.mark.thorough
def test_a_sweep_is_measured_against_runs_of_its_members():
    case = report("sweep.py")["cases"]["mlp"]
    assert case["members"] == 4 and case["times_faster"]["runs"] > 0
    seconds = {name: of["median"] for name, of in case["seconds"].items()}
    assert seconds["sweep"] > case["members"] * seconds["member"] > 0


@pytest.mark.thorough
def test_scaling_is_measured_by_layers_ways_and_processes():
    assert {"compile", "spread", "processes"} == report("scaling.py")["cases"].keys()


@pytest.mark.thorough
def test_steps_with_large_tables_are_measured_by_their_rows():
    case = report("embedding_tables.py")["cases"]["tables"]
    assert {"lazy 1000", "lazy 10000", "dense 1000"} == case["us"].keys()


@pytest.mark.thorough
def test_dilated_convolutions_are_measured_in_five_forms():
    [case] = report("dilated_convolution.py")["cases"].values()
    assert case["times_of_xla"].keys() == {"products", "unfolded", "folded", "mixed"}


@pytest.mark.parametrize("parts", first(1, ["attention", "sweep", "plan", "suite", "pmap"]))
def test_a_part_of_what_an_accelerator_is_asked_runs_anywhere(parts, tmp_path):
    script, record = BENCHMARKS / "accelerator.sh", tmp_path / "record.json"
    command = [str(script), "--quick", "--parts", parts, "--json", str(record)]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(record.read_text())
    assert found["parts"].keys() == {parts} and "error" not in found["parts"][parts]
    assert len(found["goals"]) == 14 and all(
        {"check", "value", "pass"} < goal.keys() for goal in found["goals"]
    )


def test_goals_are_judged_by_what_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    accelerator = __import__("accelerator")
    result = {"case": "gpt2_small", "program": "training", "size": "full", "median_ms": 1.0}
    result["mfu_of_datasheet"] = 0.5
    parts = {
        "suite": {"results": [result]},
        "sweep": {"times_one": {"64": 41.0, "2048": 400.0}},
        "plan": {"bytes": {"forecast": 105, "measured": 100}, "seconds": {"forecast": 2, "measured": 1}},
    }
    passed = {goal["check"]: goal["pass"] for goal in accelerator.goals(parts, False)}
    assert passed["GPT-2 small, MFU"] is False and passed["Llama 1B, MFU"] is None
    assert passed["64 MLPs as one program, times one"] is True
    assert passed["2,048 MLPs as one program, times one"] is False
    assert passed["plan, memory off by"] is True and passed["plan, time off by"] is False
