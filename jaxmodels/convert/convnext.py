"""ConvNeXts as transformers, timm and torchvision hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from jaxmodels.convert.family import (
    Family,
    Weight,
    classes_of,
    conv,
    dense,
    follow,
    labels,
    norm,
    number,
    numbers,
    one_image,
    state_dict,
    timm,
)
from jaxmodels.models import convnext
from jaxmodels.models.convnext import ConvNeXt

FOLLOWED: dict[str, Any] = {"hidden_act": "gelu"}
HEADS = {"ConvNextForImageClassification": True, "ConvNextModel": False, "ConvNextBackbone": False}
TIMM = {
    name: getattr(convnext, name)
    for name in ("convnext_tiny", "convnext_small", "convnext_base", "convnext_large")
}


def _model(config: Mapping[str, Any]) -> ConvNeXt:
    follow(config, FOLLOWED)
    sizes, depths = numbers(config, "hidden_sizes", 1_000_000), numbers(config, "depths", 10_000)
    if len(sizes) != len(depths):
        raise ValueError(
            f"convnext: got hidden_sizes {sizes} and depths {depths}; expected both for each stage. Correct "
            "config.json."
        )
    settings = {"layer_scale_init_value": 1e-6, "layer_norm_eps": 1e-12, "patch_size": 4, **config}
    return ConvNeXt(
        classes=classes_of(config, HEADS),
        depths=depths,
        widths=sizes,
        patch=number(settings, "patch_size"),
        layer_scale=number(settings, "layer_scale_init_value", float),
        epsilon=number(settings, "layer_norm_eps", float),
    )


def _config(model: ConvNeXt) -> dict[str, Any]:
    return {
        "model_type": "convnext",
        "architectures": ["ConvNextForImageClassification" if model.classes else "ConvNextModel"],
        "hidden_sizes": list(model.widths),
        "depths": list(model.depths),
        "num_stages": len(model.depths),
        "patch_size": model.patch,
        "layer_scale_init_value": model.layer_scale,
        "layer_norm_eps": model.epsilon,
        **FOLLOWED,
        **labels(model.classes),
    }


class _Names(NamedTuple):
    """Prefixes of names; {s} and {b} are the indices of stage and block, from 0."""

    stem: tuple[str, str]  # convolution, normalisation
    down: tuple[str, str]  # normalisation, convolution
    block: str
    layers: tuple[str, str, str, str]  # of a block: convolution, normalisation, up, down
    scale: str
    head: tuple[str, str]  # normalisation, linear layer


TRANSFORMERS = _Names(
    ("convnext.embeddings.patch_embeddings", "convnext.embeddings.layernorm"),
    ("convnext.encoder.stages.{s}.downsampling_layer.0", "convnext.encoder.stages.{s}.downsampling_layer.1"),
    "convnext.encoder.stages.{s}.layers.{b}.",
    ("dwconv", "layernorm", "pwconv1", "pwconv2"),
    "layer_scale_parameter",
    ("convnext.layernorm", "classifier"),
)
NAMES_OF_TIMM = _Names(
    ("stem.0", "stem.1"),
    ("stages.{s}.downsample.0", "stages.{s}.downsample.1"),
    "stages.{s}.blocks.{b}.",
    ("conv_dw", "norm", "mlp.fc1", "mlp.fc2"),
    "gamma",
    ("head.norm", "head.fc"),
)
TORCHVISION = _Names(
    ("features.0.0", "features.0.1"),
    ("features.{before}.0", "features.{before}.1"),
    "features.{own}.{b}.",
    ("block.0", "block.2", "block.3", "block.5"),
    "layer_scale",
    ("classifier.0", "classifier.2"),
)


def _weights(model: ConvNeXt, names: _Names) -> list[Weight]:
    found = conv("stem", names.stem[0], bias=True) + norm("stem_norm", names.stem[1])
    for s, depth in enumerate(model.depths):
        for b in range(depth):
            ours = f"stage_{s + 1}_block_{b}"
            block = names.block.format(s=s, b=b, own=2 * s + 1)
            filter_, normalised, up, down = (block + name for name in names.layers)
            found += conv(f"{ours}/conv", filter_, bias=True) + norm(f"{ours}/norm", normalised)
            found += dense(f"{ours}/up", up) + dense(f"{ours}/down", down)
            if model.layer_scale:
                found.append(_scale(f"{ours}/scale", block + names.scale, names is TORCHVISION))
        if s:
            normalised, down = (name.format(s=s, before=2 * s) for name in names.down)
            found += norm(f"stage_{s + 1}_norm", normalised) + conv(f"stage_{s + 1}_down", down, bias=True)
    found += norm("norm", names.head[0])
    return found + dense("head", names.head[1]) if model.classes else found


def _scale(ours: str, theirs: str, axes: bool) -> Weight:
    """A factor for each channel; axes: whether theirs has two more axes, of 1."""
    if not axes:
        return Weight(ours, (theirs,))
    return Weight(ours, (theirs,), lambda x: x[:, 0, 0], lambda x: x[:, None, None])


FAMILIES = (
    Family(
        ("convnext",),
        _model,
        _config,
        lambda model: _weights(model, TRANSFORMERS),
        prefixes=("convnext.",),
        modules=(ConvNeXt,),
        inputs=one_image,
    ),
    timm(TIMM, lambda model: _weights(model, NAMES_OF_TIMM), (ConvNeXt,)),
    state_dict(lambda model: _weights(model, TORCHVISION), (ConvNeXt,)),
)
