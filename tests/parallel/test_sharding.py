"""Where rules put the arrays of a state."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec as P

from jaxmodels.layers.transformer_rules import transformer_rules
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.parallel.axes import bubble, micro_batches
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.rules import splitting, state_shardings
from jaxmodels.paths import by_path
from jaxmodels.step import State

pytestmark = pytest.mark.fast


def specs(params, mesh: str, rules=()) -> dict[str, P]:
    state = State(jnp.zeros(()), jax.random.key(0), params, {}, {"mu": params}, jnp.zeros(()))
    placed = state_shardings(state, make_mesh(mesh), rules)
    return {name: x.spec for name, x in by_path(placed).items()}


def shapes(**of: tuple[int, ...]) -> dict[str, jax.ShapeDtypeStruct]:
    return {name: jax.ShapeDtypeStruct(shape, jnp.float32) for name, shape in of.items()}


def of(model, **sizes) -> dict:
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]


def test_axes_count_from_the_last_dimension_so_that_a_stack_needs_no_other_rule():
    rules = [("kernel", (None, "tensor"))]
    got = specs({"a": shapes(kernel=(6, 8)), "b": shapes(kernel=(3, 6, 8))}, "tensor=2", rules)
    assert got["params/a/kernel"] == P(None, "tensor") and got["params/b/kernel"] == P(None, None, "tensor")


def test_axes_before_the_dots_count_from_the_first_and_fsdp_leaves_them_whole():
    rules = [("kernel", ("pipeline", ..., None, "tensor"))]
    got = specs(
        {"kernel": jax.ShapeDtypeStruct((16, 6, 8), jnp.float32)}, "pipeline=2,fsdp=2,tensor=2", rules
    )
    assert got["params/kernel"] == P("pipeline", "fsdp", "tensor")
    got = specs({"kernel": jax.ShapeDtypeStruct((16, 6, 8), jnp.float32)}, "fsdp=2", rules)
    assert got["params/kernel"] == P(None, None, "fsdp")


def test_rules_of_blocks_name_whole_parts_of_paths():
    rules = transformer_rules(4)

    def first(name):
        return next(wanted for pattern, wanted in rules if re.search(pattern, name))

    assert first("params/blocks/attention/out/kernel") != ("pipeline", ...)
    for name in ("layout", "lookup", "monkey", "meltdown"):
        assert first(f"params/blocks/{name}/kernel") == ("pipeline", ...), name


@pytest.mark.slow
def test_moments_lie_where_their_parameter_does():
    model = GPT(12, 4, 8, 2, 2)
    got = specs(of(model), "fsdp=2,tensor=2", model.rules())
    for path, spec in got.items():
        if path.startswith("params/"):
            assert got[path.replace("params/", "opt_state/mu/")] == spec
    assert got["params/blocks/qkv/kernel"] == P(None, "fsdp", "tensor")
    assert got["params/blocks/down/kernel"] == P(None, "tensor", "fsdp")


def test_what_the_rules_split_is_counted_with_the_number_that_must_divide():
    model = GPT(13, 4, 48, 2, 6)
    params = of(model)
    found = splitting(params, model.rules())
    assert {axis: n for axis, (_, n) in found.items()} == {"pipeline": 2, "tensor": 6}
    blocks = sum(x.size for x in jax.tree.leaves(params["blocks"]))
    assert found["pipeline"][0] == blocks > found["tensor"][0] > blocks // 2


def test_a_vocabulary_that_does_not_divide_stays_whole():
    model = GPT(13, 4, 8, 2, 2)
    assert specs(of(model), "tensor=2", model.rules())["params/embed/embedding"] == P(None, None)


def test_heads_that_would_be_cut_are_refused_with_the_parameter_and_a_way_out():
    model = Llama(12, 4, 8, 2, 4, 2, 12)
    message = (
        r"attention/key/kernel \[2, 8, 4\]: tensor=4 does not divide its 2 parts that must stay whole, such"
    )
    with pytest.raises(ValueError, match=message):
        specs(of(model), "tensor=4", model.rules())


def test_layers_that_do_not_divide_into_stages_are_refused():
    model = GPT(12, 4, 8, 3, 2)
    with pytest.raises(ValueError, match="pipeline=2 does not divide its 3; choose a pipeline that does"):
        specs(of(model), "pipeline=2", model.rules())


@pytest.mark.parametrize(
    ("mesh", "rules", "message"),
    [
        (
            "tensor=2",
            (),
            r"nothing is split over tensor=2: the experiment has no rules; give it rules=model.rules\(\)",
        ),
        (
            "model=2",
            (),
            "nothing is split over model=2: expected one of data, fsdp, expert, context, tensor, pipeline, "
            "or one "
            "that a rule",
        ),
        (
            "pipeline=2",
            [("x", ("tensor",))],
            "nothing is split over pipeline=2: this model's rules have nothing to split there",
        ),
    ],
)
def test_an_axis_that_nothing_uses_is_refused(mesh, rules, message):
    with pytest.raises(ValueError, match=message):
        specs(shapes(kernel=(6, 8)), mesh, rules)


def test_micro_batches_divide_what_a_device_has_and_are_four_a_stage_where_there_are_so_many():
    assert micro_batches(64, 4, 2) == 16 and micro_batches(8, 4, 2) == 4 and micro_batches(12, 2, 2) == 2
    assert bubble(4, 16) == pytest.approx(3 / 19)
