"""Greedy training of a deep belief network: each machine on what the ones below make of the data.

Source: Hinton, Osindero and Teh (2006), section 4. Dimensions: B batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import init_from
from jaxmodels.tasks.contrastive_divergence import Pixels, contrastive_divergence


class Greedy(NamedTuple):
    """The task, whose parameters are a dict by machine, and the loss of each, for training.greedy_step."""

    task: Task
    losses: dict[str, Callable[[Any, Any, Any, Any], tuple[Mean, Any, dict[str, Mean]]]]


def greedy(model: nn.Module, *, steps: int = 1, inputs: str = "image", pixels: Pixels = "values") -> Greedy:
    """CD-k of every machine of a jaxmodels.models.dbn, which sees the machines below as they are.

    The hidden units that a machine sees are drawn from their probabilities. The sum of all losses, the task's
    own, trains all machines at once, each by its own gradient. evaluate gives the reconstruction of each.
    """
    machines: Any = model.machines
    options = [{"pixels": pixels if n == 0 else "probabilities"} for n in range(len(machines))]
    tasks = {
        f"machines_{n}": contrastive_divergence(machine, steps=steps, inputs="below", **options[n])
        for n, machine in enumerate(machines)
    }

    def below(params, batch, layer):
        """What the machine of a layer sees."""
        x = batch[inputs]
        for n in range(layer):
            own = jax.lax.stop_gradient(params[f"machines_{n}"])
            x = machines[n].apply({"params": own}, x)
        return {"below": x, "weight": batch["weight"]}

    def loss_of(layer, name):
        def loss(params, extra, batch, keys_B):
            keys_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, layer)
            seen = below(params, batch, layer)
            mean, _, metrics = tasks[name].loss(params[name], {}, seen, keys_B)
            return mean, extra, metrics

        return loss

    losses = {name: loss_of(n, name) for n, name in enumerate(tasks)}

    def loss(params, extra, batch, keys_B):
        found = {name: of(params, extra, batch, keys_B)[2] for name, of in losses.items()}
        first, *others = (one["loss"] for one in found.values())
        mean = Mean(sum((one.total for one in others), start=first.total), first.weight)
        return mean, extra, {**_named(found), "loss": mean}

    def evaluate(params, extra, batch):
        return _named(
            {
                name: task.evaluate(params[name], {}, below(params, batch, n))
                for n, (name, task) in enumerate(tasks.items())
            }
        )

    def requires(batch, params, extra):
        first = tasks["machines_0"].requires(batch, params, extra)
        return {inputs: first["below"], "weight": first["weight"]}

    return Greedy(Task(init_from(model, inputs), loss, evaluate, requires=requires), losses)


def _named(found: dict[str, dict[str, Mean]]) -> dict[str, Mean]:
    return {f"reconstruction_{n}": metrics["reconstruction"] for n, metrics in enumerate(found.values())}
