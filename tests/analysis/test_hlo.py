from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxmodels.analysis import hlo
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.planning.lowering import partition

MESH = {"data": 2, "fsdp": 4}


def lowered(fn, *specs):
    """fn of square arrays of 64 numbers a side, placed by these specs on the mesh."""
    mesh = make_mesh("data=2,fsdp=4")
    shardings = [NamedSharding(mesh, PartitionSpec(*spec)) for spec in specs]
    shapes = [jax.ShapeDtypeStruct((64, 64), jnp.float32)] * (len(specs) - 1)
    return jax.jit(fn, in_shardings=shardings[:-1], out_shardings=shardings[-1]).lower(*shapes)


def work(fn, *specs):
    return hlo.Work(**partition(lowered(fn, *specs), MESH))


@pytest.mark.fast
@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,2},{1,3}}, x", [[0, 2], [1, 3]]),
        ("replica_groups=[2,4]<=[8], x", [[0, 1, 2, 3], [4, 5, 6, 7]]),
        ("replica_groups=[4,2]<=[2,4]T(1,0), x", [[0, 4], [1, 5], [2, 6], [3, 7]]),
        ("replica_groups=mesh['a'=8,'b'=1] {'a'}, x", [[0, 1, 2, 3, 4, 5, 6, 7]]),
        (
            "replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}, x",
            [[0, 4], [1, 5], [2, 6], [3, 7]],
        ),
    ],
)
def test_replica_groups_are_read_in_every_notation(text, groups):
    assert hlo.replica_groups(text, 8) == groups


def test_a_contraction_over_an_axis_reduces_over_it():
    [one] = work(jnp.matmul, (None, "fsdp"), ("fsdp", None), ()).collectives
    assert one == hlo.Collective("all-reduce", ("fsdp",), 2 * 3 / 4 * 64 * 64 * 4, 1)


def test_a_result_that_is_split_is_reduced_and_scattered():
    [one] = work(jnp.matmul, (None, "fsdp"), ("fsdp", None), ("fsdp", None)).collectives
    assert one == hlo.Collective("reduce-scatter", ("fsdp",), 3 / 4 * 64 * 64 * 4, 1)


def test_what_is_gathered_is_sent_to_all_others():
    [one] = work(lambda x: x + 1, ("data", None), ()).collectives
    assert one == hlo.Collective("all-gather", ("data",), 64 * 64 * 4 / 2, 1)


def test_exchanges_in_a_loop_count_as_often_as_it_runs():
    def loop(x, w):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, None, length=5)[0]

    found = work(loop, (None, "fsdp"), ("fsdp", None), (None, "fsdp"))
    assert found.flops == {"float32": 5 * 2 * 64**3 / 4}
    assert sum(c.times for c in found.collectives) == 5


def test_products_are_counted_as_they_are_divided():
    assert work(jnp.matmul, ("data", None), (None, "fsdp"), ("data", "fsdp")).flops == {
        "float32": 2 * 64**3 / 8
    }


def test_products_that_every_device_repeats_count_for_each():
    assert work(jnp.matmul, (), (), ()).flops == {"float32": 2 * 64**3}


@pytest.mark.fast
def test_the_axes_of_a_group_are_those_along_which_it_differs():
    ids = np.arange(8).reshape(2, 2, 2)
    mesh = {"data": 2, "fsdp": 2, "tensor": 2}
    assert hlo.axes_of([ids[0, :, 1].tolist()], mesh) == ("fsdp",)
    assert hlo.axes_of([ids[:, 0, :].ravel().tolist()], mesh) == ("data", "tensor")


@pytest.mark.fast
def test_an_operand_may_be_a_part_of_a_tuple():
    text = """HloModule m
ENTRY %e (p: (s32[], f32[4,8])) -> f32[4,2] {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %w = f32[8,2]{1,0} constant({...})
  ROOT %d = f32[4,2]{1,0} dot(%p#1, %w), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}
"""
    assert hlo.read(text, {"data": 1}).flops == {"float32": 2 * 4 * 8 * 2}
