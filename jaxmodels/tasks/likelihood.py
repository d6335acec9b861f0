"""Forecasts as distributions: the likelihood of what followed, and futures that are drawn step by step.

Dimensions: B windows, L steps of history, H of the horizon, T = L + H, C series, K known columns, S samples,
P parameters of a distribution, R = BS rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import keys
from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks import gaussian, negative_binomial, student_t
from jaxmodels.tasks.apply import apply, known_of
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import FINITE, finite, weights

DISTRIBUTIONS: dict[str, Any] = {
    "gaussian": gaussian,
    "student_t": student_t,
    "negative_binomial": negative_binomial,
}


def likelihood(model: nn.Module) -> Task:
    """Negative log likelihood, in nats a value, of batches of "history" (BLC), "target" (BHC) and "weight"
    (BHC), such as those of SeriesWindows; "known" (BTK) too.

    model: as models.deepar.DeepAR: its call with target_BHC gives the parameters BHCP of its `distribution`
    at each step, given all values before it. Values are those of the data: a density depends on their unit.
    """
    density = _distribution(model).log_density

    def init(key, batch):
        extra = dict(model.init(key, batch["history"], None, **known_of(model, batch)))
        return extra.pop("params"), extra

    def measure(params, extra, batch, keys_B):
        counts_BHC = batch["weight"] > 0
        # What does not count may be nan, and 0 times its gradient would be nan too.
        target_BHC = jnp.where(counts_BHC, batch["target"], 0).astype(jnp.float32)
        before_BHC = jnp.where(jnp.isfinite(batch["target"]), batch["target"], 0)
        known = known_of(model, batch)
        options: dict[str, Any] = {"weight": batch["weight"], "target_BHC": before_BHC, **known}
        parameters_BHCP, extra = apply(model, params, extra, batch["history"], keys_B, **options)
        loss_BHC = jnp.where(counts_BHC, -density(parameters_BHCP.astype(jnp.float32), target_BHC), 0)
        return {"loss": Mean.of(loss_BHC, batch["weight"])}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def requires(batch, params, extra):
        shape = batch["history"].shape[1:]
        required = {
            "history": finite("the values before", shape, ()),
            "target": finite("what followed", (batch["target"].shape[1], shape[1])),
            "weight": weights(batch["target"].shape[1:]),
            "known": finite("what is known ahead", where=()),
        }
        if getattr(model, "distribution", "") == "negative_binomial":
            required["target"] = Requirement(
                "counts, whole numbers from 0",
                "Take another distribution, or do not scale counts",
                low=0,
                high=FINITE,
                where=("weight",),
                wrong=lambda batch: np.mod(batch["target"], 1) != 0,
            )
        return required

    return Task(init, loss, evaluate, requires=requires)


def futures(
    model: nn.Module, samples: int = 100, horizon: int | None = None
) -> Callable[[Any, Any, Any], jax.Array]:
    """For Evaluation.predict: (params, extra, batch) to `samples` futures of each window, BSHC.

    Each step is drawn given the steps drawn before it, in one compiled loop; the keys are those of the
    history, so a window's futures do not depend on its batch. horizon: the model's own if None; a batch with
    "ahead" (BH) has another.
    """
    if samples < 1 or (horizon is not None and horizon < 1):
        raise ValueError(
            f"futures: got {samples} samples and a horizon of {horizon}; expected 1 or more. Raise it."
        )
    draw = _distribution(model).draw
    own: int = getattr(model, "horizon", 1) if horizon is None else horizon

    def predict(params, extra, batch):
        history_BLC = batch["history"]
        B, L, C = history_BLC.shape
        steps = batch["ahead"].shape[1] if "ahead" in batch else own
        variables = {"params": params, **extra}
        keys_B = content_keys(history_BLC)
        dtype = jax.tree.leaves(params)[0].dtype
        known = known_of(model, batch)
        if known and known["known_BTK"].shape[1] < L + steps:
            raise ValueError(
                f"futures: got known columns for {known['known_BTK'].shape[1] - L} steps ahead; expected "
                f"{steps}, the horizon. Give them for every step."
            )
        memory: Any = model.apply(variables, history_BLC.astype(dtype), **known, method="read")

        states = jax.tree.map(lambda x_EH: _repeated(x_EH.reshape(B, C, -1), samples), memory.states)
        value_RC, scale_RC = (jnp.repeat(x_BC, samples, 0) for x_BC in memory[1:])
        memory = memory._replace(states=states, value_BC=value_RC, scale_BC=scale_RC)
        ahead = None
        if known:
            ahead = jnp.repeat(known["known_BTK"][:, L : L + steps], samples, 0).swapaxes(0, 1)

        def step(memory, now):
            h, known_RK = now
            parameters_RCP, states = model.apply(variables, memory, known_RK, method="step")
            parameters_BSCP = parameters_RCP.reshape(B, samples, C, -1).astype(jnp.float32)
            value_BSC = jax.vmap(draw)(keys.fold(keys_B, h), parameters_BSCP)
            value_RC = value_BSC.reshape(-1, C).astype(memory.value_BC.dtype)
            return memory._replace(states=states, value_BC=value_RC), value_BSC

        _, value_HBSC = jax.lax.scan(step, memory, (jnp.arange(steps), ahead))
        return value_HBSC.transpose(1, 2, 0, 3)

    return predict


def _repeated(state_BCH: jax.Array, samples: int) -> jax.Array:
    """A state for each row of each series: the samples of a window are one after the other."""
    return jnp.repeat(state_BCH, samples, 0).reshape(-1, state_BCH.shape[-1])


def _distribution(model: nn.Module) -> Any:
    name = getattr(model, "distribution", None)
    if name not in DISTRIBUTIONS:
        raise ValueError(
            f"likelihood: got {type(model).__name__}; expected a model whose outputs are the parameters of a "
            "distribution, and which has its name as a field, such as DeepAR. Take one of those."
        )
    return DISTRIBUTIONS[name]
