"""The up-down algorithm: a deep belief network's recognition and generative weights, fine-tuned together.

    wake   units drawn upwards; the generative weights learn to make each layer from the one above it
    top    contrastive divergence of the top machine, which starts from those units
    sleep  units drawn downwards from there; the recognition weights learn to find each layer's causes

Source: Hinton, Osindero and Teh (2006), section 5 and appendix B. Dimensions: B batch, V units.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from jaxmodels import choices
from jaxmodels.keys import fold
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import init_from
from jaxmodels.tasks.contrastive_divergence import Pixels, visible
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import of_images


def up_down(
    model: nn.Module, *, steps: int = 1, inputs: str = "image", pixels: Pixels = "probabilities"
) -> Task:
    """The three losses as one sum; each has a gradient by its own parameters alone, as all units are drawn.

    model: an untied jaxmodels.models.dbn, started from untied(…) of a greedily trained one (see
    tasks.pretrained). steps: of Gibbs sampling in the top machine. The value of the loss is no measure.
    evaluate gives "bound", of variational_bound.
    """
    machines: Any = model.machines
    top = len(machines) - 1

    def run(params, method, *arguments):
        return model.apply({"params": params}, *arguments, method=method)

    def of_top(params, method, *arguments):
        own = {"params": params[f"machines_{top}"]}
        return machines[top].apply(own, *arguments, method=method)

    def drawn(probability_BV, keys_B, n):
        return visible(probability_BV, "probabilities", fold(keys_B, n))

    def loss(params, extra, batch, keys_B):
        fixed = jax.lax.stop_gradient(params)
        units = [visible(batch[inputs], pixels, fold(keys_B, 0))]  # of each layer below the top, going up
        for n in range(top):
            units.append(drawn(run(fixed, "up", units[n], n), keys_B, n + 1))
        wake_B = sum(
            (_miss(run(params, "down_logits", units[n + 1], n), units[n]) for n in range(top)),
            start=jnp.zeros(len(batch["weight"])),
        )
        end_BV = of_top(fixed, "gibbs", units[top], fold(keys_B, top + 1), steps)
        top_B = of_top(params, "free_energy", units[top]) - of_top(params, "free_energy", end_BV)
        sleep_B = jnp.zeros_like(wake_B)
        for n in reversed(range(top)):
            below = jax.nn.sigmoid(run(fixed, "down_logits", end_BV, n))
            below_BV = drawn(below, keys_B, top + 2 + n)
            own = {"params": params[f"machines_{n}"]}
            sleep_B += _miss(machines[n].apply(own, below_BV, method="hidden_logits"), end_BV)
            end_BV = below_BV
        values = {"loss": wake_B + top_B + sleep_B, "wake": wake_B, "sleep": sleep_B}
        metrics = {name: Mean.of(x_B, batch["weight"]) for name, x_B in values.items()}
        return metrics["loss"], extra, metrics

    bound = variational_bound(model, pixels=pixels)

    def evaluate(params, extra, batch):
        bound_B = bound(params, batch[inputs], content_keys(batch[inputs]))
        return {"bound": Mean.of(bound_B, batch["weight"])}

    return Task(init_from(model, inputs), loss, evaluate, requires=of_images)


def variational_bound(
    model: nn.Module, *, pixels: Pixels = "probabilities"
) -> Callable[[Any, jax.Array, jax.Array], jax.Array]:
    """(params, x, keys_B) to a sample of the variational bound on log p(x) + log Z, B, in nats.

    Z is that of the top machine: less its logarithm (tasks.annealed_importance), the mean over samples is at
    most the log-likelihood (Salakhutdinov and Murray, 2008, equation 24), and the mean of its exponential is
    the likelihood. The network may be tied or not.
    """
    choices.check("up_down", "pixels", pixels, Pixels)
    machines: Any = model.machines
    top = len(machines) - 1

    def bound(params, x, keys_B):
        x_BV = visible(x, pixels, fold(keys_B, 0))
        bound_B = jnp.zeros(x_BV.shape[0])
        for n in range(top):
            logits_BH = machines[n].apply({"params": params[f"machines_{n}"]}, x_BV, method="hidden_logits")
            h_BH = visible(jax.nn.sigmoid(logits_BH), "probabilities", fold(keys_B, n + 1))
            made_BV = model.apply({"params": params}, h_BH, n, method="down_logits")
            bound_B += _miss(logits_BH, h_BH) - _miss(made_BV, x_BV)
            x_BV = h_BH
        own = {"params": params[f"machines_{top}"]}
        return bound_B - machines[top].apply(own, x_BV, method="free_energy")

    return bound


def dreams(
    model: nn.Module, *, steps: int = 1000, inputs: str = "index"
) -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to means of visible units BV for each row of batch[inputs], for
    Evaluation.predict.

    A chain of so many steps in the top machine, then one way down. The row's value chooses it.
    """
    machines: Any = model.machines
    top = len(machines) - 1

    def predict(params, extra, batch):
        keys_B, own = content_keys(batch[inputs]), {"params": params[f"machines_{top}"]}
        start_BV = jnp.broadcast_to(own["params"]["visible_bias"], (keys_B.shape[0], machines[top].visible))
        x_BV = machines[top].apply(own, start_BV, fold(keys_B, 0), method="draw_visible")
        mean_BV = x_BV = machines[top].apply(own, x_BV, fold(keys_B, 1), steps, method="gibbs")
        for n in reversed(range(top)):
            logits_BV: Any = model.apply({"params": params}, x_BV, n, method="down_logits")
            mean_BV = jax.nn.sigmoid(logits_BV)
            x_BV = visible(mean_BV, "probabilities", fold(keys_B, n + 2))
        return mean_BV

    return predict


def _miss(logits_BV: Any, x_BV: jax.Array) -> jax.Array:
    """Cross-entropy of units, B, in nats."""
    return optax.sigmoid_binary_cross_entropy(logits_BV, x_BV).sum(-1)
