"""Autoregressive models of sounds: the likelihood of each sample, and generation (arXiv:1609.03499).

A model here has, besides its call, `encoded(audio)`, `loss(parameters, samples)`, `audio(samples)` and
`draw(parameters, key, temperature)`, and for generation `start`, `conditions` and `step`, as
models/wavenet.py has.
Dimensions: B batch, S samples, N categories, L frames, F features, K parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.keys import content_keys
from jaxmodels.tasks.requirements import fields, finite, segments, weights


def conditions_of(batch: Any) -> dict[str, Any]:
    """What a batch conditions the model on: its "categories" (BN, int) and "frames" (BLF), where it has
    them."""
    names = {"categories": "categories_BN", "frames": "frames_BLF"}
    return {argument: batch[name] for name, argument in names.items() if name in batch}


def next_sample(model: Any) -> Task:
    """Negative log-likelihood of each sample, in nats, and its "bits_per_sample".

    Batches have audio (BS, -1 to 1), weight (B), where sounds are padded segments (BS, 0 is padding, which is
    not counted), and what the model is conditioned on; see conditions_of.
    """

    def init(key, batch):
        extra = dict(model.init(key, model.encoded(batch["audio"]), **conditions_of(batch)))
        return extra.pop("params"), extra

    def measure(params, extra, batch, keys_B):
        x_BS = model.encoded(batch["audio"].astype(jnp.float32))
        said, extra = apply(
            model, params, extra, x_BS, keys_B, weight=batch["weight"], **conditions_of(batch)
        )
        real_BS = jnp.ones(x_BS.shape) if "segments" not in batch else batch["segments"] > 0
        weight_BS = real_BS * batch["weight"].astype(jnp.float32)[:, None]
        return {"loss": Mean.of(model.loss(said, x_BS), weight_BS)}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def finish(metrics):
        return {**metrics, "bits_per_sample": metrics["loss"] / math.log(2)}

    def requires(batch, params, extra):
        found = {
            "audio": finite("samples of a sound, -1 to 1"),
            "weight": weights(),
            "segments": segments(),
            "categories": fields(model.categories, key="categories"),
            "frames": finite("numbers of each frame"),
        }
        return {name: required for name, required in found.items() if name in batch}

    return Task(init, loss, evaluate, finish, requires=requires)


def generate(
    model: Any, variables: Any, keys_B: jax.Array, samples: int, *, temperature: float = 1.0, **conditions
) -> jax.Array:
    """Sounds (B, `samples`; float32) as one compiled loop over samples.

    keys_B: one for each sound; a sample's own number is folded in. temperature: 0 always takes the likeliest
    sample. conditions: categories_BN and frames_BLF, as the model's call has them.
    """
    B, dtype = keys_B.shape[0], jax.tree.leaves(variables["params"])[0].dtype
    given = (conditions.get("categories_BN"), conditions.get("frames_BLF"))
    of_layers = model.apply(variables, *given, B, dtype, method="conditions")
    L = of_layers[0].shape[1]
    if samples % L:
        raise ValueError(
            f"generate: got {samples:,} samples for {L:,} frames; expected as many as the frames have. "
            "Give samples = frames x hop."
        )

    def step(state, time):
        x_B, queues = state
        now = [jax.lax.dynamic_index_in_dim(c, time // (samples // L), 1, keepdims=False) for c in of_layers]
        said_BK, queues = model.apply(variables, x_B, queues, now, time, method="step")
        keys = jax.vmap(lambda key: jax.random.fold_in(key, time))(keys_B)
        x_B = jax.vmap(lambda said, key: model.draw(said, key, temperature))(said_BK, keys)
        return (x_B, queues), x_B

    kind = model.encoded(jnp.zeros((1, 1))).dtype
    begun = (jnp.full(B, model.silence, kind), model.start(B, dtype))
    _, x_SB = jax.lax.scan(step, begun, jnp.arange(samples))
    return model.audio(x_SB.T)


def sample(
    model: Any, samples: int, *, temperature: float = 1.0, inputs: str = "index"
) -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to one sound for each row, for Evaluation.predict.

    The value of batch[inputs] chooses the sound; categories and frames are the batch's.
    """

    def predict(params, extra, batch):
        keys_B, variables = content_keys(batch[inputs]), {"params": params, **extra}
        return generate(model, variables, keys_B, samples, temperature=temperature, **conditions_of(batch))

    return predict
