"""Voice conversion by reconstruction: a sound's frames from their content and their own speaker.

The encoder hears each example as by a throat of another length (vocal tract length perturbation, Jaitly and
Hinton, 2013), while the target stays as it is: so the content cannot tell the speaker by the formants.
Dimensions: B batch, S samples, T frames, F features of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.requirements import finite, labels, segments, weights

OFFSET = 2**19  # folded into an example's key: the model draws other numbers


def warped(x_BTF: jax.Array, factor_B: jax.Array) -> jax.Array:
    """Frames whose feature f is that of f x factor, between features linearly; the last one beyond."""
    F = x_BTF.shape[-1]
    at_BF = jnp.minimum(jnp.arange(F) * factor_B[:, None], F - 1)
    first_BF = jnp.minimum(jnp.floor(at_BF).astype(jnp.int32), F - 2)
    t = (at_BF - first_BF)[:, None]
    low, high = (jnp.take_along_axis(x_BTF, (first_BF + i)[:, None], -1) for i in (0, 1))
    return low + t * (high - low)


def of_frames(segments_BS: jax.Array, hop: int, T: int) -> jax.Array:
    """Segments (BT) of centred frames from those of samples: a frame has that of its middle."""
    segments_BT = segments_BS[:, ::hop]
    return jnp.pad(segments_BT, ((0, 0), (0, T - segments_BT.shape[1])))


def voice_conversion(
    model: nn.Module,
    features: Callable[[jax.Array], jax.Array],
    hop: int,
    speakers: int,
    *,
    warp: float = 0.0,
) -> Task:
    """Mean absolute error of a frame's features.

    model(frames, keys, speaker_B=…, segments_BT=…) gives frames. features(audio_BS): frames (BTF) that are
    `hop` samples apart. warp: the encoder's features are stretched by a factor of up to 1 + warp, or
    compressed, in training. Batches have audio (BS), segments (BS, 0 is padding), speaker (B, int, below
    `speakers`) and weight (B).
    """

    def init(key, batch):
        x_BTF, real_BT = heard(batch)
        extra = dict(model.init(key, x_BTF, speaker_B=batch["speaker"], segments_BT=real_BT))
        return extra.pop("params"), extra

    def heard(batch):
        x_BTF = features(batch["audio"])
        return x_BTF, of_frames(batch["segments"], hop, x_BTF.shape[1])

    def measure(params, extra, batch, keys_B):
        x_BTF, real_BT = heard(batch)
        inputs_BTF = x_BTF
        if keys_B is not None and warp:
            u_B = jax.vmap(
                lambda key: jax.random.uniform(jax.random.fold_in(key, OFFSET), minval=-1.0, maxval=1.0)
            )(keys_B)
            inputs_BTF = warped(x_BTF, (1 + warp) ** u_B)
        said, extra = apply(
            model,
            params,
            extra,
            inputs_BTF,
            keys_B,
            speaker_B=batch["speaker"],
            segments_BT=real_BT,
            weight=batch["weight"],
        )
        miss_BT = jnp.abs(said.astype(jnp.float32) - x_BTF).mean(-1)
        weight_BT = (real_BT > 0) * batch["weight"].astype(jnp.float32)[:, None]
        return {"loss": Mean.of(miss_BT, weight_BT)}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def requires(batch, params, extra):
        S = batch["audio"].shape[1:]
        return {
            "audio": finite("samples of a sound, -1 to 1", S),
            "segments": segments(S),
            "speaker": labels(speakers),
            "weight": weights(),
        }

    return Task(init, loss, evaluate, requires=requires)


def converted(
    model: nn.Module,
    features: Callable[[jax.Array], jax.Array],
    hop: int,
    sound: Callable[[jax.Array, int], jax.Array],
    *,
    target: str = "target",
) -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to each sound (BS) as the speaker batch[target] says it, for
    Evaluation.predict.

    sound(frames_BTF, S): the sounds that have such features.
    """

    def predict(params, extra, batch):
        x_BTF = features(batch["audio"])
        real_BT = of_frames(batch["segments"], hop, x_BTF.shape[1])
        said, _ = apply(model, params, extra, x_BTF, None, speaker_B=batch[target], segments_BT=real_BT)
        return sound(said.astype(jnp.float32), batch["audio"].shape[1]) * (batch["segments"] > 0)

    return predict
