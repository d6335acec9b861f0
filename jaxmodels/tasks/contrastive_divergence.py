"""Contrastive divergence: a machine's free energy falls at the data and rises where its own chains go.

    gradient  =  d F(v) / d parameters  -  d F(v') / d parameters

v' is what k steps of Gibbs sampling make of v itself (CD-k, Hinton, 2002, doi:10.1162/089976602760128018), or
of chains that go on from step to step (persistent, Tieleman, 2008, doi:10.1145/1390156.1390290).
Dimensions: B batch, V visible units, C chains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels import choices
from jaxmodels.keys import fold, per_example
from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.apply import init_from
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import finite, weights

Pixels = Literal["values", "probabilities"]


class Persistent(NamedTuple):
    """The task, whose extra holds the chains, and how they move, for training.persistent_step."""

    task: Task
    move: Callable[[Any, Any, jax.Array], Any]


def visible(x: jax.Array, pixels: Pixels, keys_B: jax.Array) -> jax.Array:
    """The visible units of an input, BV float32: its values, or a 0 or 1 of each as a probability."""
    choices.check("contrastive divergence", "pixels", pixels, Pixels)
    x_BV = x.reshape(x.shape[0], -1).astype(jnp.float32)
    if pixels == "values":
        return x_BV
    uniform = jax.vmap(lambda key: jax.random.uniform(key, x_BV.shape[1:]))(keys_B)
    return (uniform < x_BV).astype(jnp.float32)


def contrastive_divergence(
    model: nn.Module, *, steps: int = 1, inputs: str = "image", pixels: Pixels = "values"
) -> Task:
    """CD-k of a restricted Boltzmann machine, by the common training step.

    model: one of jaxmodels.models.rbm. steps: k, of Gibbs sampling from each example. pixels: "probabilities"
    draws 0 or 1 for grey values, anew at every step, and in evaluation by the values themselves.

    The loss is the mean difference of free energies, F(v) - F(v'): its gradient is that of contrastive
    divergence, its value is no measure of progress. evaluate gives "free_energy", and "reconstruction": the
    cross-entropy in nats, or squared error of real units, of the visible units after one step by means.
    """
    _check(model, steps, pixels)

    def loss(params, extra, batch, keys_B):
        x_BV = visible(batch[inputs], pixels, fold(keys_B, 0))
        other_BV = _run(model, jax.lax.stop_gradient(params), "gibbs", x_BV, fold(keys_B, 1), steps)
        loss_B = _free(model, params, x_BV) - _free(model, params, other_BV)
        metrics = {"loss": Mean.of(loss_B, batch["weight"]), **_seen(model, params, x_BV, batch["weight"])}
        return metrics["loss"], extra, metrics

    return Task(
        init_from(model, inputs), loss, _evaluation(model, inputs, pixels), requires=_needs(inputs, model)
    )


def persistent(
    model: nn.Module,
    *,
    chains: int = 100,
    steps: int = 1,
    inputs: str = "image",
    pixels: Pixels = "values",
) -> Persistent:
    """Persistent contrastive divergence: as contrastive_divergence, but v' are chains that are never reset.

    The chains are a part of the training state, extra["chains"] (CV), so a resumed run goes on with them;
    persistent_step(persistent(…).move) of jaxmodels.training.persistent_step moves them before each update.
    """
    _check(model, steps, pixels)
    if chains < 1:
        raise ValueError(f"persistent: got chains={chains}; expected at least 1. Give 100")
    kind = jnp.int8 if model.units == "bernoulli" else jnp.float32

    def init(key, batch):
        params, extra = init_from(model, inputs)(key, batch)
        keys_C = jax.random.split(jax.random.fold_in(key, 1), chains)
        start_CV = jnp.broadcast_to(params["visible_bias"], (chains, model.visible))
        x_CV = _run(model, params, "draw_visible", start_CV, keys_C)
        return params, {**extra, "chains": x_CV.astype(kind)}

    def loss(params, extra, batch, keys_B):
        x_BV = visible(batch[inputs], pixels, fold(keys_B, 0))
        chains_CV = extra["chains"].astype(jnp.float32)
        loss_B = _free(model, params, x_BV) - _free(model, params, chains_CV).mean()
        metrics = {"loss": Mean.of(loss_B, batch["weight"]), **_seen(model, params, x_BV, batch["weight"])}
        return metrics["loss"], extra, metrics

    def move(params, extra, key):
        keys_C = per_example(key, jnp.arange(chains))
        x_CV = _run(model, params, "gibbs", extra["chains"].astype(jnp.float32), keys_C, steps)
        return {**extra, "chains": x_CV.astype(kind)}

    evaluate = _evaluation(model, inputs, pixels)
    return Persistent(Task(init, loss, evaluate, requires=_needs(inputs, model)), move)


def samples(
    model: nn.Module, *, steps: int = 1000, inputs: str = "index"
) -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to means of visible units BV for each row of batch[inputs], for
    Evaluation.predict.

    They are those of a chain of so many steps from the visible biases alone; the row's value chooses it.
    """

    def predict(params, extra, batch):
        keys_B = content_keys(batch[inputs])
        start_BV = jnp.broadcast_to(params["visible_bias"], (keys_B.shape[0], model.visible))
        x_BV = _run(model, params, "draw_visible", start_BV, fold(keys_B, 0))
        x_BV = _run(model, params, "gibbs", x_BV, fold(keys_B, 1), steps)
        return _run(model, params, "means", _run(model, params, None, x_BV))

    return predict


def _check(model: Any, steps: int, pixels: str) -> None:
    choices.check("contrastive divergence", "pixels", pixels, Pixels)
    if steps < 1:
        raise ValueError(f"contrastive divergence: got steps={steps}; expected at least 1. Give 1")
    if pixels == "probabilities" and model.units != "bernoulli":
        raise ValueError(
            f"contrastive divergence: got pixels='probabilities' for {model.units} units; expected bernoulli "
            "ones, which are 0 or 1. Leave pixels out, or change the units."
        )


def _run(model: Any, params: Any, method: str | None, *arguments: Any) -> Any:
    return model.apply({"params": params}, *arguments, method=method)


def _free(model: Any, params: Any, x_BV: jax.Array) -> jax.Array:
    return _run(model, params, "free_energy", x_BV)


def _seen(model: Any, params: Any, x_BV: jax.Array, weight_B: jax.Array) -> dict[str, Mean]:
    """Free energy, and how far one step by means leads away."""
    params = jax.lax.stop_gradient(params)
    inputs_BV = _run(model, params, "visible_inputs", _run(model, params, None, x_BV))
    if model.units == "bernoulli":
        miss_B = optax.sigmoid_binary_cross_entropy(inputs_BV, x_BV).sum(-1)
    else:
        miss_B = ((inputs_BV - x_BV) ** 2).sum(-1)
    values = {"free_energy": _free(model, params, x_BV), "reconstruction": miss_B}
    return {name: Mean.of(x_B, weight_B) for name, x_B in values.items()}


def _evaluation(model: Any, inputs: str, pixels: Pixels) -> Callable[[Any, Any, Any], dict[str, Mean]]:
    def evaluate(params, extra, batch):
        x_BV = visible(batch[inputs], pixels, content_keys(batch[inputs]))
        return _seen(model, params, x_BV, batch["weight"])

    return evaluate


def _needs(inputs: str, model: Any) -> Callable[[Any, Any, Any], Mapping[str, Requirement]]:
    """Values from 0 to 1 for Bernoulli units, numbers for real ones."""
    own = finite("numbers")
    if model.units == "bernoulli":
        do = "Scale them, or take real visible units: units='gaussian'"
        own = Requirement("values from 0 to 1 of Bernoulli units", do, low=0, high=1, where=("weight",))
    return lambda batch, params, extra: {inputs: own, "weight": weights()}
