"""MLP-Mixers as timm holds them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.convert.family import Weight, conv, dense, norm, timm
from jaxmodels.models import mixer
from jaxmodels.models.mixer import Mixer

SIZES = ("s32", "s16", "b32", "b16", "l16")
TIMM = {f"mixer_{size}_224": getattr(mixer, f"mixer_{size}") for size in SIZES}


def _weights(model: Mixer) -> list[Weight]:
    found = conv("embed", "stem.proj", bias=True) + norm("norm", "norm")
    for ours, theirs, number in (("token", "mlp_tokens", 1), ("channel", "mlp_channels", 2)):
        found += norm(f"blocks/norm_{ours}", f"blocks.{{}}.norm{number}")
        for layer, name in (("up", "fc1"), ("down", "fc2")):
            found += dense(f"blocks/{ours}_{layer}", f"blocks.{{}}.{theirs}.{name}")
    return found + dense("head", "head") if model.classes else found


def _image(model: Any) -> tuple:
    """An image of the model's size in three colours."""
    height, width = (model.size,) * 2 if isinstance(model.size, int) else model.size
    return (jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32),)


FAMILIES = (timm(TIMM, _weights, (Mixer,), inputs=_image),)
