"""What the devices exchange, read from the compiled programs: nothing that should have stayed where it is."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

import jax
import pytest
from parallel.cases import BY_NAME, B, T, compiled

KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"


class Exchange(NamedTuple):
    """One array that a collective gives."""

    kind: str
    dtype: str
    shape: tuple[int, ...]


@cache
def program(name: str, axes: str):
    return compiled(BY_NAME[name], axes)


@cache
def exchanges(name: str, axes: str) -> list[Exchange]:
    text = re.sub(r"/\*index=\d+\*/", "", program(name, axes)[0].as_text())
    found = []
    for result, kind in re.findall(rf"= (\(?[^=]*?\)?) ({KINDS})(?:-start)?\(", text):
        for dtype, shape in re.findall(r"(\w+)\[([\d,]*)\]", result):
            found.append(Exchange(kind, dtype, tuple(int(n) for n in shape.split(",") if n)))
    return found


def gathered(name: str, axes: str) -> list[tuple[int, ...]]:
    """Shapes of the arrays of numbers, not of indices, that some device gets whole."""
    return [
        one.shape
        for one in exchanges(name, axes)
        if one.kind == "all-gather" and one.dtype.startswith(("f", "bf"))
    ]


def split_parameters(name: str, axes: str, axis: str) -> set[tuple[int, ...]]:
    """Whole shapes of the parameters that are split over this axis; of one layer and of all."""
    case = BY_NAME[name]
    _, placed, _ = program(name, axes)
    shapes = jax.eval_shape(lambda: case.task.init(jax.random.key(0), case.batch))[0]
    pairs = zip(jax.tree.leaves(shapes), jax.tree.leaves(placed.params), strict=True)
    of = {leaf.shape for leaf, where in pairs if axis in where.spec}
    assert of
    return of | {shape[1:] for shape in of if len(shape) > 2}


def test_data_parallel_devices_exchange_sums_alone():
    assert {one.kind for one in exchanges("gpt", "data=8")} == {"all-reduce"}


@pytest.mark.parametrize("name", ["gpt", "bert", "transformer"])
def test_tensor_parallel_devices_never_get_a_whole_matrix(name):
    whole = split_parameters(name, "data=2,tensor=4", "tensor")
    assert not [shape for shape in gathered(name, "data=2,tensor=4") if shape in whole]


def test_fully_sharded_matrices_are_gathered_a_layer_at_a_time():
    layers = split_parameters("gpt", "fsdp=8", "fsdp")
    stacks = {shape for shape in layers if len(shape) == 3}
    got = gathered("gpt", "fsdp=8")
    assert {shape for shape in layers if len(shape) == 2} & set(got)  # they are gathered
    assert not stacks & set(got)  # but not all layers at once


def test_experts_stay_on_their_devices():
    whole = split_parameters("llama", "data=2,expert=4", "expert")
    assert not [shape for shape in gathered("llama", "data=2,expert=4") if shape in whole]


@pytest.mark.parametrize(
    ("name", "axes"),
    [
        ("gpt", "data=2,tensor=4"),
        ("gpt", "fsdp=8"),
        ("bert", "data=2,tensor=4"),
        ("llama", "data=2,expert=4"),
    ],
)
def test_no_device_gets_an_activation_of_the_whole_batch(name, axes):
    activations = [
        shape for shape in gathered(name, axes) if shape[:2] in ((B, T), (B * T,), (T, B)) and len(shape) > 2
    ]
    assert not activations


def test_keys_and_values_are_what_devices_along_a_sequence_exchange():
    """Each device has all keys and values of its examples, and a part of everything else."""
    heads = {(B // 2, T, 4, 4)}
    of_sequences = {shape for shape in gathered("gpt", "data=2,context=4") if len(shape) > 2 and T in shape}
    assert of_sequences == heads


def test_stages_hand_over_micro_batches():
    permuted = {
        one.shape for one in exchanges("gpt", "data=2,pipeline=4") if one.kind == "collective-permute"
    }
    assert permuted and all(shape[-2:] == (T, 16) for shape in permuted)
