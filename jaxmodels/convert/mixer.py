"""MLP-Mixers as timm holds them."""

from __future__ import annotations

from jaxmodels.convert.family import Weight, conv, dense, image_of_size, norm, timm
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


FAMILIES = (timm(TIMM, _weights, (Mixer,), inputs=image_of_size),)
