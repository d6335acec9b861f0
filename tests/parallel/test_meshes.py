"""Every way to split a run gives the losses of one device, over ten steps with dropout, packing and padding.

The suite holds meshes that between them have every axis and most pairs; `pytest -m thorough tests/parallel`
tries every product of axes over eight devices for every model.
"""

from __future__ import annotations

import itertools
import math

import jax.numpy as jnp
import pytest
from instances import first
from parallel.cases import BY_NAME, Case, alone, losses

SOME = [
    ("gpt", "data=2,fsdp=2,tensor=2"),
    ("gpt", "pipeline=2,context=2,tensor=2"),
    ("llama", "fsdp=2,expert=2,tensor=2"),
    ("resnet", "fsdp=4,context=2"),
    ("llama", "pipeline=2,expert=2,context=2"),
    ("bert", "fsdp=4,context=2"),
    ("vit", "data=2,context=2,tensor=2"),
    ("transformer", "pipeline=2,fsdp=2,tensor=2"),
]


def agrees(case: Case, axes: str, **options) -> None:
    assert losses(case, axes, **options) == pytest.approx(alone(case), abs=1e-4)
    assert alone(case)[-1] < alone(case)[0] - 0.1  # what is compared has moved


# The first four split every axis; a thorough one adds a model whose parts are split by the same rules.
@pytest.mark.parametrize(("name", "axes"), first(4, SOME), ids=[f"{name}-{axes}" for name, axes in SOME])
def test_ten_losses_on_a_mesh_are_those_of_one_device(name, axes):
    agrees(BY_NAME[name], axes)


def test_micro_batches_on_a_mesh_change_nothing():
    agrees(BY_NAME["gpt"], "data=2,tensor=2", accumulate=2)


def test_in_bfloat16_a_mesh_differs_by_rounding_alone():
    half = {"precision": jnp.bfloat16}
    one, several = (losses(BY_NAME["gpt"], axes, **half) for axes in ("data=1", "data=2,fsdp=2,tensor=2"))
    assert several == pytest.approx(one, abs=5e-3) and one != alone(BY_NAME["gpt"])


def products(axes: tuple[str, ...], devices: int = 8) -> list[str]:
    """All meshes of so many devices with these axes, those of size 1 left out."""
    sizes = [2**i for i in range(int(math.log2(devices)) + 1)]
    found = [pick for pick in itertools.product(sizes, repeat=len(axes)) if math.prod(pick) == devices]
    return [",".join(f"{axis}={n}" for axis, n in zip(axes, pick, strict=True) if n > 1) for pick in found]


OF_TRANSFORMERS = ("data", "fsdp", "context", "tensor", "pipeline")
AXES = {"resnet": ("data", "fsdp", "context"), "llama": (*OF_TRANSFORMERS, "expert")}


def possible(name: str, axes: str) -> bool:
    """Not more than there are heads, layers or experts."""
    most = {"tensor": 2 if name == "llama" else 4, "pipeline": 4, "expert": 4}
    return all(int(n) <= most.get(axis, 8) for axis, n in (part.split("=") for part in axes.split(",")))


ALL = [
    (name, axes)
    for name in BY_NAME
    for axes in products(AXES.get(name, OF_TRANSFORMERS))
    if possible(name, axes)
]  # the order of axes in a mesh changes which devices talk, not what is computed


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "axes"), ALL, ids=[f"{name}-{axes}" for name, axes in ALL])
def test_ten_losses_on_every_mesh_are_those_of_one_device(name, axes):
    agrees(BY_NAME[name], axes)
