"""train --profile: a trace of some steps, and which operations of which modules take the time."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace as Made

import pytest
from files import tiny_mlp
from report.runs import HOSTILE, write_run
from states import same_bits

from jaxmodels import cli, train
from jaxmodels.analysis import hlo, trace
from jaxmodels.analysis.trace import locate, operations
from jaxmodels.commands.report import report
from jaxmodels.training.profile import window

fast = pytest.mark.fast
MLP = Path(tiny_mlp.__file__)


def run(folder: Path, **more):
    return train(MLP, folder=str(folder), **{"mesh": "data=1", **more})


def operations_of(folder: Path) -> tuple[list[int], list[dict]]:
    """(the steps, what took their time)."""
    said = json.loads((folder / "profile" / "operations.json").read_text())
    return [said["first"], said["last"]], said["operations"]


def test_a_profiled_run_has_the_same_bits_and_names_the_modules(tmp_path):
    plain, profiled = (
        run(tmp_path / x, dropout=0.1, profile=p, steps_per_dispatch=3)
        for x, p in (("a", ""), ("b", "10:14"))
    )
    same_bits(plain.state, profiled.state)
    assert plain.metrics == profiled.metrics and not (tmp_path / "a" / "profile").exists()
    steps, said = operations_of(tmp_path / "b")
    assert steps == [9, 15]  # dispatches of three steps, around an evaluation
    assert list((tmp_path / "b" / "profile").rglob("*.xplane.pb"))
    found = {(row["module"], row["operation"], row["pass"]): row for row in said}
    product = found["MLP/hidden_0", "dot_general", "forward"]
    assert product["times"] == 1 and product["ms"] > 0  # one a step; the evaluation's are not counted
    assert ("MLP/hidden_0", "dot_general", "backward") in found and any(
        module == "update" for module, _, _ in found
    )
    assert sum(row["share"] for row in said) == pytest.approx(1)


def test_a_resumed_run_profiles_what_is_left_of_the_steps(tmp_path):
    with pytest.raises(Exception, match="--stop-at"):
        run(tmp_path / "x", profile="2:4", steps_per_dispatch=1, stop_at=3)
    assert not (tmp_path / "x" / "profile" / "operations.json").exists()  # cut short
    with pytest.raises(Exception, match="--stop-at"):
        run(tmp_path / "x", profile="2:5", stop_at=12)
    assert operations_of(tmp_path / "x")[0] == [3, 5]
    (tmp_path / "x" / "profile").rename(tmp_path / "old")
    run(tmp_path / "x", profile="2:5")
    assert not (tmp_path / "x" / "profile").exists()


def test_the_command_shows_a_table_and_how_to_look_at_the_trace(tmp_path, capsys):
    folder = str(tmp_path / "run")
    assert cli.main(["train", str(MLP), "--folder", folder, "--mesh", "data=1", "--profile", "20:90"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "What takes the time of steps 20 to 24" in out and "MLP/hidden_0" in out
    assert f"xprof --logdir {folder}/profile" in out and ".trace.json.gz at ui.perfetto.dev" in out


@pytest.mark.parametrize(
    ("text", "why"),
    [("10-15", "two steps"), ("15:10", "two steps"), ("5", "two steps"), ("24:30", "for a run of 24 steps")],
)
def test_a_window_that_cannot_be_is_an_error_before_anything_is_written(tmp_path, capsys, text, why):
    assert (
        cli.main(["train", str(MLP), "--folder", str(tmp_path / "x"), "--mesh", "data=1", "--profile", text])
        == 2
    )
    assert why in capsys.readouterr().err and not (tmp_path / "x").exists()


@fast
def test_a_trace_needs_a_folder_and_steps_stop_at_the_end():
    with pytest.raises(ValueError, match="got a run without a folder"):
        train(tiny_mlp.build(tiny_mlp.Config()), mesh="data=1", profile="1:2")
    assert (window("", 9), window("3:5", 9), window("3:50", 9)) == (None, (3, 5), (3, 9))


@fast
@pytest.mark.parametrize(
    ("op_name", "kind", "where"),
    [
        ("jit(steps_1)/jvp(MLP)/hidden_0/dot_general", "fusion", ("MLP/hidden_0", "dot_general", "forward")),
        (
            "jit(s)/while/body/eval_jaxpr/transpose(jvp(MLP))/head/transpose",
            "dot",
            ("MLP/head", "dot_general", "backward"),
        ),
        (
            "jit(s)/transpose(jvp(GPT.hidden))/blocks/blocks.layer/BGRTS,BSGD->BTGRD/dot_general",
            "fusion",
            ("GPT/blocks", "dot_general", "backward"),
        ),
        (
            "jit(s)/jvp(GPT)/while/body/closed_call/checkpoint/blocks.layer/blocks/mul",
            "fusion",
            ("GPT/blocks", "mul", "forward"),
        ),
        ("jit(s)/jvp(CNN)/CNN.features/jit(relu)/max", "fusion", ("CNN", "max", "forward")),
        ("jit(s)/jvp(vmap(jit(_normal)))/cond/branch_0_fun/mul;jit(s)/add", "fusion", ("", "mul", "forward")),
        ("jit(s)/alternating.<locals>.step/update/sub", "fusion", ("update", "sub", "")),
        ("copy", "copy", ("", "copy", "")),
        ("jit(s)/jvp(MLP)/head/dot_general", "all-gather-start", ("MLP/head", "all-gather", "forward")),
        (
            "jit(s)/transpose(jvp(MLP))/(a/reduce_sum:b/reduce_sum)",
            "all-reduce",
            ("MLP", "all-reduce", "backward"),
        ),
        ("jit(s)/(jvp()/reduce_sum:transpose(jvp(MLP))/a/reduce_sum)", "all-reduce", ("", "all-reduce", "")),
    ],
)
def test_the_scopes_of_an_operation_are_the_modules_path(op_name, kind, where):
    assert locate(op_name, kind) == where


TEXT = """HloModule jit_steps_1, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%fused_computation (param_0: f32[8]) -> f32[8] {
  %param_0 = f32[8]{0} parameter(0), metadata={op_name="moving['x']"}
  %tanh.1 = f32[8]{0} tanh(%param_0), metadata={op_name="jit(s)/jvp(MLP)/act/tanh"}
  ROOT %copy.1 = f32[8]{0} copy(%tanh.1)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %while.1 = f32[8]{0} while(%x), condition=%c, body=%b, metadata={op_name="jit(s)/jvp(MLP)/keys/while"}
  %copy.2 = f32[8]{0} copy(%while.1), metadata={op_name="moving['x']"}
  ROOT %fusion.3 = f32[8]{0} fusion(%copy.2), kind=kLoop, calls=%fused_computation
}
"""


def event(name, begin, duration, **stats):
    return Made(name=name, start_ns=begin, duration_ns=duration, stats=list(stats.items()))


def traced(planes):
    """A trace by the events of each plane's one line."""
    return Made(
        planes=[Made(name=name, lines=[Made(name="1", events=events)]) for name, events in planes.items()]
    )


@fast
def test_a_program_says_where_each_instruction_comes_from():
    name, scopes = hlo.scopes(TEXT)
    assert name == "jit_steps_1"
    assert scopes["while.1"] == ("while", "jit(s)/jvp(MLP)/keys/while")
    assert scopes["fusion.3"] == ("fusion", "jit(s)/jvp(MLP)/act/tanh") and scopes["copy.2"] == ("copy", "")


@fast
def test_time_is_counted_once_and_what_xla_adds_belongs_where_it_happens():
    of = {"hlo_module": "jit_steps_1"}
    events = [
        event("while.1", 0, 100, hlo_op="while.1", **of),
        event("copy.2", 10, 30, hlo_op="copy.2", **of),
        event("fusion.3", 50, 20, hlo_op="fusion.3", **of),
        event("fusion.3", 200, 20, hlo_op="fusion.3", **of),
        event("fusion.3", 300, 999, hlo_op="fusion.3", hlo_module="jit_program"),  # an evaluation's
        event("ThunkExecutor::Execute", 0, 500),
    ]
    found = operations(traced({"/host:CPU": events}), dict([hlo.scopes(TEXT)]))
    assert [(o.module, o.operation, o.times, round(o.seconds * 1e9)) for o in found] == [
        ("MLP/keys", "while", 1, 50),
        ("MLP/act", "tanh", 2, 40),
        ("MLP/keys", "copy", 1, 30),
    ]


@fast
def test_of_an_accelerator_its_own_events_are_read():
    host = [event("fusion.3", 0, 500, hlo_op="fusion.3", hlo_module="jit_steps_1")]
    kernels = [
        event("loop_tanh_kernel", 0, 7, hlo_op="fusion.3", hlo_module="jit_steps_1"),
        event("MemcpyD2D", 9, 5),
    ]
    whole = [
        event("%fusion.3 = f32[8]{0} fusion(%copy.2)", 0, 9),
        event("%other.3 = f32[8]{0} add(%x, %x)", 20, 9),
    ]
    for device, ns in ((kernels, 7), (whole, 9)):
        [found] = operations(traced({"/host:CPU": host, "/device:GPU:0": device}), dict([hlo.scopes(TEXT)]))
        assert (found.module, found.operation, round(found.seconds * 1e9)) == ("MLP/act", "tanh", ns)


def test_a_trace_without_names_is_said_to_have_none(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trace, "operations", lambda *_: [])
    assert run(tmp_path / "x", profile="4:5", steps_per_dispatch=1).summary["exit"] == "complete"
    assert "names no operation of the step" in capsys.readouterr().err


@fast
def test_a_report_has_the_operations_as_text_and_says_where_they_are_damaged(tmp_path):
    pytest.importorskip("plotly", reason="plotly is absent; pip install 'jaxmodels[report]'")
    folder = write_run(tmp_path / "run")
    row = {
        "module": HOSTILE,
        "operation": "dot_general",
        "pass": "forward",
        "ms": 1.5,
        "share": 0.75,
        "times": 2.0,
    }
    file = folder / "profile" / "operations.json"
    file.parent.mkdir()
    file.write_text(
        json.dumps({"first": 9, "last": 15, "operations": [row, {**row, "module": "", "share": 0.1}]})
    )
    page = report(folder, model="off").read_text()
    assert "of steps 9 to 15, by flax" in page and "75.0%" in page and "(no module)" in page
    assert HOSTILE not in page and "&lt;/script&gt;&lt;script&gt;alert(1)" in page
    for damaged in (
        {"first": 9},
        {"first": 9, "last": 15, "operations": [{**row, "ms": "x"}]},
        {"first": 9, "last": "x", "operations": []},
    ):
        file.write_text(json.dumps(damaged))
        assert "holds values that no profile has" in report(folder, model="off").read_text()
