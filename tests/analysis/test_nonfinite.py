"""After a loss that is not finite: which module, which input, which example."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first
from tiny import TINY

from jaxmodels import optim, step
from jaxmodels.analysis import nonfinite
from jaxmodels.models.gpt import GPT
from jaxmodels.models.mlp import MLP
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.regress import regress

fast = pytest.mark.fast

B = 4
BATCH = {
    "features": np.ones((B, 3), np.float32),
    "target": np.ones((B, 1), np.float32),
    "weight": np.ones(B, np.float32),
}


def state_of(task: Task, batch=BATCH, change=lambda params: params) -> step.State:
    state = jax.jit(lambda: step.init(task, optim.sgd(0.1), 0, batch))()
    return state._replace(params=change(state.params))


def put(params, path: str, value: float):
    """params with one number changed."""
    first, _, rest = path.partition("/")
    changed = (
        put(params[first], rest, value) if rest else params[first].at[(0,) * params[first].ndim].set(value)
    )
    return {**params, first: changed}


SOME = ("cnn-norm-dropout", "gpt-untied-remat-unroll", "moe-shared-remat", "gru-bidirectional", "transformer")


@pytest.mark.parametrize("tiny", first(1, [t for t in TINY if t.name in SOME]), ids=str)
def test_a_finite_batch_blames_nobody_though_a_mask_holds_infinities(tiny):
    assert nonfinite.first_not_finite(tiny.task, state_of(tiny.task, tiny.batch), tiny.batch) is None


@pytest.mark.parametrize(
    ("broken", "module"),
    [
        ("hidden_0/kernel", "MLP/hidden_0"),
        pytest.param("hidden_1/kernel", "MLP/hidden_1", marks=fast),
        ("head/bias", "MLP/head"),
    ],
)
def test_the_first_module_whose_output_is_not_finite_is_named(broken, module):
    task = regress(MLP((4, 4), 1, nn.tanh))
    state = state_of(task, change=lambda params: put(params, broken, jnp.nan))
    found = nonfinite.first_not_finite(task, state, BATCH)
    assert (found.module, found.backward) == (module, False)


@pytest.mark.slow
@fast
def test_an_overflow_is_found_where_it_happens():
    task = regress(MLP((4, 4), 1))
    state = state_of(task, change=lambda params: jax.tree.map(lambda x: jnp.abs(x) + 1e13, params))
    assert nonfinite.first_not_finite(task, state, BATCH).module == "MLP/head"  # 1e13 ** 3 passes 3e38


def test_in_a_stack_of_layers_the_layer_is_named():
    model = GPT(vocabulary=5, length=4, width=4, depth=3, heads=2)
    batch = {name: np.zeros((2, 4), np.int32) for name in ("inputs", "targets")} | {
        "weight": np.ones((2, 4), np.float32)
    }
    task = next_token(model)

    def change(params):
        kernel = params["blocks"]["up"]["kernel"].at[1, 0, 0].set(jnp.inf)
        return {**params, "blocks": {**params["blocks"], "up": {**params["blocks"]["up"], "kernel": kernel}}}

    found = nonfinite.first_not_finite(task, state_of(task, batch, change), batch)
    assert (found.module, found.backward) == ("GPT/blocks[1]/up", False)


def bare(loss) -> Task:
    """A task whose loss of its one parameter a is written by hand."""

    def losses(params, extra, batch, keys_B):
        mean = Mean.of(loss(params["a"]) + 0 * batch["target"][:, 0], batch["weight"])
        return mean, extra, {"loss": mean}

    return Task(lambda key, batch: ({"a": jnp.zeros(())}, {}), losses, lambda *_: {})


@pytest.mark.slow
@fast
@pytest.mark.parametrize("loss", [jnp.log, lambda a: 1e38 + a], ids=["log of 0", "a sum past 3e38"])
def test_a_loss_without_modules_is_itself_to_blame(loss):
    found = nonfinite.first_not_finite(bare(loss), state_of(bare(loss)), BATCH)
    assert (found.module, found.backward) == ("", False)
    assert "the loss, outside all modules" in words(bare(loss), state_of(bare(loss)))


@pytest.mark.slow
@fast
def test_a_gradient_that_is_not_finite_is_found_though_the_loss_is():
    class Root(nn.Module):
        """Square root of a Dense layer's output: 0 at 0, where its slope is infinite."""

        @nn.compact
        def __call__(self, x, keys_B=None):
            return jnp.sqrt(nn.Dense(1, kernel_init=nn.initializers.zeros, name="dense")(x))

    task = regress(Root())
    found = nonfinite.first_not_finite(task, state_of(task), BATCH)
    assert found.backward
    assert found.module.startswith("Root")


# In words


def words(task: Task, state: step.State, batch=BATCH, examples=None) -> str:
    return nonfinite.explain(task, state._replace(step=jnp.asarray(7)), batch, examples, None)


@pytest.mark.slow
@fast
def test_the_message_names_step_rows_examples_module_and_what_to_do():
    task = regress(MLP((4,), 1))
    state = state_of(task, change=lambda params: jax.tree.map(lambda x: jnp.abs(x) + 1e25, params))
    text = words(task, state, examples=np.array([30, 4, 11, -1]))
    assert "step 7" in text
    assert "rows 28 to 31" in text
    assert "examples 30, 4, 11 of the data set" in text
    assert "module MLP/head" in text
    assert "--on-nan skip" in text


@fast
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_bad_data_is_named_with_its_key_and_example(value):
    task = regress(MLP((4,), 1))
    features = BATCH["features"].copy()
    features[2:, 1] = value
    text = words(task, state_of(task), {**BATCH, "features": features}, np.array([30, 4, 11, 9]))
    assert f"batch['features'] holds {value} in row 2 (example 11), and in 1 more rows" in text
    assert "module" not in text


@fast
def test_a_parameter_that_was_not_finite_before_is_named():
    task = regress(MLP((4,), 1))
    assert "Parameter head/bias is itself not finite" in words(
        task, state_of(task, change=lambda params: put(params, "head/bias", jnp.inf))
    )
