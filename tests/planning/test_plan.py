from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import jaxmodels
from jaxmodels import cli
from jaxmodels.commands import plan as command
from jaxmodels.console import Console
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.planning import compilers, interconnect, lowering, show
from jaxmodels.planning.roofline import forecast
from jaxmodels.planning.targets import target
from jaxmodels.runs import experiment_file
from jaxmodels.state import abstract_state, initial

FILE = str(Path(__file__).parents[1] / "files" / "tiny_gpt.py")


def request(**changes):
    wanted = {
        "mesh": "",
        "precision": "float32",
        "remat": "model",
        "accumulate": 1,
        "compile": "on",
        **changes,
    }
    on, knobs = target(wanted.pop("on", "cpu:8")), wanted.pop("knobs", {})
    return command.make_request(FILE, on, knobs, **wanted)


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def facts(folder):
    return lowering.lower_and_analyze(request(mesh="data=2,fsdp=4"))


def state_of(mesh):
    file = experiment_file.load(FILE)
    experiment = file.build(file.config())
    _, shardings = abstract_state(experiment, make_mesh(mesh))
    return jax.jit(lambda: initial(experiment), out_shardings=shardings)()


def test_the_bytes_of_the_state_are_those_that_a_device_holds(facts):
    state = state_of("data=2,fsdp=4")

    def held(tree):
        return sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))

    planned = {name: part["device"] for name, part in facts["state"].items()}
    assert planned == {
        "parameters": held(state.params),
        "optimizer": held(state.opt_state),
        "extra": held(state.extra),
    }


def test_the_state_and_the_batch_are_the_programs_arguments(facts):
    parts = sum(part["device"] for part in facts["state"].values())
    rest = facts["memory"]["argument"] - parts - facts["batch_bytes"] // 8
    assert 0 <= rest <= 64  # the step, the key and the count of faults


def test_the_state_is_given_away(facts):
    assert facts["memory"]["alias"] >= sum(part["device"] for part in facts["state"].values())


def test_gradients_cross_the_batch_axes(facts):
    assert {axis for c in facts["collectives"] for axis in c["axes"]} == {"data", "fsdp"}


def test_a_program_that_was_seen_before_is_not_compiled_again(facts, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("compiled")

    monkeypatch.setattr(lowering, "partition", refuse)
    monkeypatch.setattr(lowering, "memory_of", refuse)
    assert lowering.lower_and_analyze(request(mesh="data=2,fsdp=4")) == facts


def test_a_forecast_of_simulated_devices_names_no_speed(facts):
    assert forecast(facts, target("cpu:8"))["step_s"] is None


@pytest.fixture
def no_latency(monkeypatch):
    """As of a large model, beside whose products launches take no time."""
    monkeypatch.setattr("jaxmodels.planning.roofline.LAUNCH", 0.0)


def test_the_same_work_is_bound_by_what_is_slowest(facts, no_latency):
    h200 = target("h200-8")
    exchange = {
        "kind": "all-reduce",
        "axes": ["data"],
        "bytes": 1e12,
        "times": 1,
        **interconnect.Link("network", 1e9, 1)._asdict(),
    }
    assert forecast({**facts, "collectives": []}, h200)["bound"] == "memory"
    assert forecast({**facts, "collectives": [exchange]}, h200)["step_s"] == pytest.approx(1000)


def test_exchanges_between_products_add_to_the_time_and_those_of_gradients_do_not(facts, no_latency):
    h200 = target("h200-8")
    least = forecast({**facts, "collectives": []}, h200)["step_s"]
    one = {
        "kind": "all-reduce",
        "bytes": least * 1e9,
        "times": 1,
        **interconnect.Link("NVLink", 1e9, 1)._asdict(),
    }

    def with_axes(*axes):
        return forecast({**facts, "collectives": [{**one, "axes": axes}]}, h200)["step_s"]

    assert (with_axes("fsdp"), with_axes("tensor")) == (pytest.approx(least), pytest.approx(2 * least))


def test_a_pipeline_waits_while_it_fills(facts):
    h200 = target("h200-8")
    piped = {**facts, "mesh": {"pipeline": 4}, "batch": 64, "accumulate": 1, "collectives": []}
    assert forecast(piped, h200)["bubble"] == pytest.approx(3 / 19)


@pytest.mark.fast
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mesh": "data=4"}, "whose product is 8"),
        ({"mesh": "data=3,fsdp=3"}, "got 3 x 3, which is 9"),
        ({"knobs": {"batch": 12}}, "Set the batch to 8 or 16"),
        ({"accumulate": 3}, "3 micro-batches"),
        ({"knobs": {"bach": 12}}, "Did you mean 'batch'"),
    ],
)
def test_what_does_not_fit_the_machine_is_one_message(changes, says):
    with pytest.raises(ValueError, match=says):
        lowering.lower_and_analyze(request(**changes))


@pytest.mark.fast
def test_the_machine_must_be_named(capsys):
    assert cli.main(["plan", FILE]) == 2
    assert "got no --on" in capsys.readouterr().err


def test_the_command_prints_one_json_object(capsys):
    assert cli.main(["plan", FILE, "--on", "cpu:2", "--precision", "float32", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert (planned["target"], planned["mesh"], planned["memory"]["own"]) == ("cpu:2", {"fsdp": 2}, False)


def test_a_mistake_that_the_process_finds_reaches_the_caller():
    with pytest.raises(ValueError, match="expected the 2 devices"):
        jaxmodels.plan(FILE, on="cpu:2", mesh="fsdp=3")


def test_a_person_reads_memory_and_time(facts, capsys):
    h200 = target("h200-8")
    fast = {
        **facts,
        "collectives": [
            {**c, **interconnect.Link("NVLink", h200.device.link, 1)._asdict()} for c in facts["collectives"]
        ],
    }
    plan = {**fast, "target": h200.name, "machine": h200.describe(), "forecast": forecast(fast, h200)}
    show.show(plan, Console())
    out = capsys.readouterr().out
    assert "141 GiB" in out
    assert "bound by" in out


@pytest.mark.fast
def test_an_axis_over_a_whole_side_of_a_torus_uses_its_ring_both_ways():
    machine, sizes = target("v5p:4x4x4"), {"fsdp": 16, "tensor": 4}
    where = interconnect.device_coordinates(machine, None, sizes)
    link = machine.device.link
    assert interconnect.link_of_axes(machine, where, sizes, ("tensor",)) == interconnect.Link(
        "ICI, 4", 2 * link, 4
    )
    assert interconnect.link_of_axes(machine, where, sizes, ("fsdp",)) == interconnect.Link(
        "ICI, 4x4", 4 * link, 4
    )


@pytest.mark.fast
def test_an_axis_within_a_host_of_gpus_uses_nvlink_and_one_across_hosts_the_network():
    machine, sizes = target("h200-32"), {"data": 4, "fsdp": 8}
    where, device = interconnect.device_coordinates(machine, None, sizes), machine.device
    assert interconnect.link_of_axes(machine, where, sizes, ("fsdp",)) == interconnect.Link(
        "NVLink", device.link, 1
    )
    assert interconnect.link_of_axes(machine, where, sizes, ("data",)) == interconnect.Link(
        "network", device.network, 1
    )
    assert interconnect.link_of_axes(machine, where, sizes, ("data", "fsdp")).rate == 8 * device.network


@pytest.mark.fast
def test_slices_are_joined_by_the_network():
    machine, sizes = target("2xv5e:2x2"), {"data": 2, "fsdp": 4}
    where = interconnect.device_coordinates(machine, None, sizes)
    assert interconnect.link_of_axes(machine, where, sizes, ("data",)).name == "network"
    assert interconnect.link_of_axes(machine, where, sizes, ("fsdp",)).name == "ICI, 2x2"


@pytest.mark.parametrize("machine", ["v5e-4", "h200-8"])
def test_the_targets_own_compiler_says_what_memory_a_device_takes(machine):
    """Though XLA_FLAGS holds what libtpu does not know, here those of conftest.py."""
    if extra := compilers.missing(target(machine)):
        pytest.skip(f"no compiler for {machine}: pip install 'jaxmodels[{extra}]'")
    planned = jaxmodels.plan(FILE, on=machine)
    assert planned["memory"]["own"]
    assert planned["forecast"]["fits"] and np.isfinite(planned["forecast"]["step_s"])


def test_without_the_targets_compiler_memory_is_an_estimate_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(compilers, "missing", lambda target: "plan-tpu")
    memory = lowering.lower_and_analyze(request(on="v5e-8"))["memory"]
    assert not memory["own"] and memory["temp"] > 0
    assert memory["compiler"].startswith("jaxlib ") and "," not in memory["compiler"]
    assert "pip install 'jaxmodels[plan-tpu]'" in memory["notes"][0]


@pytest.mark.fast
def test_more_devices_than_can_be_simulated_are_planned_by_half_as_many_with_half_the_batch():
    assert lowering.simulated({"data": 4, "fsdp": 1024, "tensor": 4}, 64) == (
        {"data": 1, "fsdp": 512, "tensor": 4},
        8,
    )
    assert lowering.simulated({"fsdp": 8}, 7) == ({"fsdp": 8}, 7)
    with pytest.raises(ValueError, match="Take powers of two"):
        lowering.simulated({"data": 4096}, 4095)


def test_a_step_of_a_tiny_model_takes_at_least_the_launches_of_its_products(facts):
    tiny = {
        **facts,
        "collectives": [],
        "work": {**facts["work"], "flops": {"float32": 1e3}, "traffic": 1e3, "kernels": 9},
    }
    tiny["state"] = {name: {**part, "device": 100} for name, part in facts["state"].items()}
    made = forecast(tiny, target("h200-1"))
    assert made["bound"] == "latency"
    assert made["step_s"] == pytest.approx(9 * 3.4e-6)
    assert forecast({**tiny, "work": {**tiny["work"], "kernels": 0}}, target("h200-1"))[
        "step_s"
    ] == pytest.approx(3.4e-6)
