from __future__ import annotations

from pathlib import Path

import pytest

from jaxmodels import cli
from jaxmodels.planning import client
from jaxmodels.planning.search import Choice, choices, estimate, search
from jaxmodels.planning.targets import target

pytestmark = pytest.mark.fast
FILE = str(Path(__file__).parents[1] / "files" / "tiny_gpt.py")
COUNT, LAYERS = 10_000_000_000, 32  # parameters of a made-up model


def known(**changes):
    """A survey: parameters in 4 bytes, Adam's moments in 8, a million tokens in a batch of 512."""
    state = {
        "parameters": {"count": COUNT, "bytes": 4 * COUNT},
        "optimizer": {"count": 2 * COUNT, "bytes": 8 * COUNT},
        "extra": {"count": 0, "bytes": 0},
    }
    flops = {
        "model": {"bfloat16": 6e6 * COUNT},
        "hardware": {"bfloat16": 6e6 * COUNT},
        "grouped": 0.0,
        "loops": 0,
    }
    found = {"batch": 512, "steps": 10, "state": state, "flops": flops, "layers": LAYERS, "splits": {}}
    return {**found, "kept_bytes": 8e12, "input_bytes": 3e11, **changes}


def facts(choice, used):
    work = {"flops": {"bfloat16": 6e6 * COUNT / 64}, "traffic": 1e9, "loops": 0, "kernels": 0}
    state = {name: {**part, "device": part["bytes"] // 64} for name, part in known()["state"].items()}
    memory = {"argument": used, "output": 0, "alias": 0, "temp": 0, "generated_code": 0, "own": False}
    rest = {
        "mesh": dict(choice.mesh),
        "batch": 512,
        "accumulate": choice.accumulate,
        "steps": 10,
        "collectives": [],
    }
    rest |= {"batch_bytes": 1, "examples": {"examples": 512}}
    return {"flops": known()["flops"], "state": state, "work": work, "memory": memory, **rest}


def test_every_choice_makes_up_the_machine_and_divides_the_batch():
    found = list(choices(target("h200-64"), {"": known(splits={"tensor": (COUNT, 32)})}))
    for choice in found:
        sizes = dict(choice.mesh)
        ways = sizes.get("data", 1) * sizes.get("fsdp", 1)
        assert ways * sizes.get("tensor", 1) == 64
        assert 512 % (ways * choice.accumulate) == 0
    assert len(set(found)) == len(found) > 50


def test_only_what_the_model_can_split_is_split_and_evenly():
    splits = {"context": (0, 8), "expert": (COUNT // 2, 12), "pipeline": (COUNT, 6), "tensor": (COUNT, 0)}
    sizes = [dict(c.mesh) for c in choices(target("h200-64"), {"": known(splits=splits)})]
    ways = {
        axis: {size.get(axis, 1) for size in sizes} for axis in ("context", "expert", "pipeline", "tensor")
    }
    assert ways == {
        "context": {1, 2, 4, 8},
        "expert": {1, 2, 4},
        "pipeline": {1, 2},
        "tensor": {1, 2, 4, 8, 16},
    }
    assert {axis for c in choices(target("h200-64"), {"": known()}) for axis in dict(c.mesh)} == {
        "data",
        "fsdp",
    }


@pytest.mark.parametrize("axis", ["expert", "context", "pipeline", "tensor"])
def test_an_axis_takes_its_part_of_the_state_and_exchanges_more_the_wider_it_is(axis):
    splits = {"expert": (9 * COUNT // 10, 8), "context": (0, 8), "pipeline": (COUNT, 8), "tensor": (COUNT, 8)}

    def of(n):
        return estimate(
            Choice((("fsdp", 64 // n), (axis, n)), "", 1), known(splits=splits), target("h200-64")
        )

    two, eight = of(2), of(8)
    assert eight.network_s > two.network_s
    whole = {"expert": 1 / 8 + 7 / 8 / 10, "context": 1, "pipeline": 1 / 8, "tensor": 1 / 8}[axis]
    held = 16 * COUNT * whole / 8
    assert eight.bytes > held
    assert eight.bytes < held + 8e12 / 8 + 4 * COUNT / LAYERS


def test_more_ways_of_fsdp_take_less_memory():
    sizes = [
        estimate(Choice((("data", 64 // n), ("fsdp", n)), "", 1), known(), target("h200-64")).bytes
        for n in (8, 16, 32)
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_more_micro_batches_take_less_memory_and_more_network():
    one, two = (estimate(Choice((("fsdp", 64),), "", n), known(), target("h200-64")) for n in (1, 2))
    assert one.bytes > two.bytes
    assert one.network_s < two.network_s


def test_rematerialization_is_chosen_where_nothing_fits_without():
    hardware = {**known()["flops"], "hardware": {"bfloat16": 8e6 * COUNT}}
    surveys = {"none": known(kept_bytes=1e16), "full": known(kept_bytes=3e11, flops=hardware)}
    asked = []

    def ask(choice):
        asked.append(choice)
        return facts(choice, 1 << 30)

    found = search(target("h200-64"), surveys, ask)
    assert {choice.remat for choice in asked} == {"full"}
    assert found["best"]["choice"]["remat"] == "full"
    assert any("too large" in row["why"] for row in found["rows"])


def test_what_the_compiler_finds_too_large_is_not_chosen():
    tried = []

    def ask(choice):
        tried.append(choice)
        return facts(choice, 1 << 40 if len(tried) == 1 else 1 << 30)

    found = search(target("h200-64"), {"": known(kept_bytes=3e11)}, ask)
    assert found["best"]["mesh"] == dict(tried[1].mesh)
    assert [row["why"] for row in found["rows"][:2]] == ["does not fit", "chosen, bound by compute"]


def test_nothing_is_chosen_where_nothing_fits():
    found = search(target("v5e-4"), {"": known()}, lambda choice: facts(choice, 1 << 40))
    assert found["best"] is None


def test_a_batch_that_divides_nowhere_is_named():
    with pytest.raises(ValueError, match="got a batch of 511"):
        search(target("2xv5e-4"), {"": known(batch=511)}, lambda choice: {})


class Canned:
    """In place of the process that measures."""

    def __init__(self, machine, console):
        self.machine = machine

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def ask(self, request, about=""):
        if request.get("survey"):
            return known(kept_bytes=3e11)
        sizes = {axis: int(n) for axis, n in (part.split("=") for part in request["mesh"].split(","))}
        return {**facts(Choice(tuple(sizes.items()), "", 1), 1 << 30), "target": self.machine.name}


def test_the_command_that_trains_with_the_choice_is_printed(capsys, monkeypatch):
    monkeypatch.setattr(client, "Client", Canned)
    assert cli.main(["plan", FILE, "--on", "h200-8", "--search", "--batch", "512"]) == 0
    assert f"jaxmodels train {FILE} --batch 512 --mesh" in capsys.readouterr().out
