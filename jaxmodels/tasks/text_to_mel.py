"""Text to mel spectrogram, with durations from an alignment that is found while training.

A model here has FastSpeech's call; see jaxmodels/models/fastspeech.py.
Dimensions: B batch, L labels, T frames, M mel bands, S samples.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply
from jaxmodels.tasks.requirements import finite, segments, tokens, weights


def text_to_mel(model: nn.Module, features: Callable[[jax.Array], jax.Array], *, hop: int) -> Task:
    """Distances of frames and of durations, each averaged over a text.

    Batches have "labels" (BL, int: from 1 on, then zeros), "audio" (BS), "segments" (BS, 0 for padding) and
    "weight" (B). features(audio) gives the target (BTM), `hop` samples a frame.
    loss: "mel_distance", the mean absolute difference from the target; half the mean squared one of what the
    encoder says alone, from which alignments come; and the squared error of log durations.
    """

    def init(key, batch):
        extra = dict(model.init(key, batch["labels"], **_target(batch)))
        return extra.pop("params"), extra

    def _target(batch: Any) -> dict[str, Any]:
        audio_BS, segments_BS = batch["audio"], batch["segments"]
        target_BTM = features(audio_BS)
        segments_BT = segments_BS[:, ::hop]
        more = target_BTM.shape[1] - segments_BT.shape[1]
        return {"target_BTM": target_BTM, "segments_BT": jnp.pad(segments_BT, ((0, 0), (0, more)))}

    def measure(params, extra, batch, keys_B):
        target = _target(batch)
        spoken, extra = apply(model, params, extra, batch["labels"], keys_B, weight=batch["weight"], **target)
        difference = target["target_BTM"].astype(jnp.float32)
        mel_B = _mean(jnp.abs(spoken.mel_BTM - difference).mean(-1), target["segments_BT"] > 0)
        mean_B = _mean(jnp.square(spoken.mean_BTM - difference).mean(-1), target["segments_BT"] > 0)
        wanted_BL = jnp.log(jnp.maximum(spoken.duration_BL, 1).astype(jnp.float32))
        duration_B = _mean(jnp.square(spoken.log_duration_BL - wanted_BL), batch["labels"] > 0)
        values = {"loss": mel_B + mean_B / 2 + duration_B, "mel_distance": mel_B, "log_duration": duration_B}
        return {name: Mean.of(value_B, batch["weight"]) for name, value_B in values.items()}, extra

    def loss(params, extra, batch, keys_B):
        metrics, extra = measure(params, extra, batch, keys_B)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(params, extra, batch, None)[0]

    def requires(batch, params, extra):
        return {
            "audio": finite("samples of a sound, -1 to 1"),
            "weight": weights(),
            "segments": segments(),
            "labels": tokens(model.vocabulary),
        }

    return Task(init, loss, evaluate, requires=requires)


def _mean(x_BX: jax.Array, real_BX: jax.Array) -> jax.Array:
    """The mean over what is real of each example."""
    return jnp.where(real_BX, x_BX, 0).sum(1) / jnp.maximum(real_BX.sum(1), 1)


def speak(model: nn.Module, *, frames: int) -> Callable[[Any, Any, Any], Any]:
    """(params, extra, batch with "labels") to FastSpeech's frames by predicted durations, for Evaluation."""

    def predict(params, extra, batch):
        spoken, _ = apply(model, params, extra, batch["labels"], None, frames=frames)
        return {"mel": spoken.mel_BTM, "segments": spoken.segments_BT}

    return predict
