"""DS-CNN as MLPerf Tiny trained it, with batch normalisation folded into the kernels (an .npz file)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxmodels.convert.family import Weight, state_dict
from jaxmodels.models.ds_cnn import DSCNN

FEATURES = (1, 49, 10, 1)  # 49 frames of 10 cepstral coefficients


def _weights(model: DSCNN) -> list[Weight]:
    if model.norm != "folded":
        raise ValueError(
            f'mlperf-tiny: got a DSCNN with norm={model.norm!r}; expected "folded", as the file has biases '
            "alone. Make the model with it."
        )
    layers = ["conv_0"]
    for i in range(1, len(model.rows) + 1):
        layers += [f"depthwise_{i}", f"conv_{i}"]
    layers += ["dense"] if model.classes else []
    return [
        Weight(f"{layer}/{name}", (f"{layer}/{name}",)) for layer in layers for name in ("kernel", "bias")
    ]


def _inputs(model: DSCNN) -> tuple:
    return (jax.ShapeDtypeStruct(FEATURES, jnp.float32),)


FAMILIES = (state_dict(_weights, (DSCNN,), layout="mlperf-tiny", inputs=_inputs),)
