"""Every family of models that can be read and written in the layouts of other libraries."""

from __future__ import annotations

import flax.linen as nn

from jaxmodels.convert import (
    alexnet,
    bert,
    convnext,
    ds_cnn,
    gpt2,
    inception,
    llama,
    mixer,
    mobilenet,
    mtcnn,
    resnet,
    t5,
    vit,
    vits,
    whisper,
)
from jaxmodels.convert.family import Family

IMAGE_MODULES = (alexnet, inception, resnet, mobilenet, vit, mixer, convnext, mtcnn, ds_cnn)
FAMILIES: tuple[Family, ...] = (
    gpt2.FAMILY,
    *llama.FAMILIES,
    *bert.FAMILIES,
    t5.FAMILY,
    whisper.FAMILY,
    vits.FAMILY,
    *(family for module in IMAGE_MODULES for family in module.FAMILIES),
)


def family_of(model: nn.Module, layout: str | None, caller: str) -> Family:
    """The family of this layout in whose names the model is written, by default the first."""
    name = type(model).__name__
    of_model = [family for family in FAMILIES if isinstance(model, family.modules)]
    if not of_model:
        raise ValueError(
            f"{caller}: got a {name}, which has no form outside of jaxmodels; expected a model that "
            "convert knows. Keep it as a checkpoint."
        )
    family = next((family for family in of_model if layout in (None, family.layout)), None)
    if family is None:
        known = ", ".join(family.layout for family in of_model)
        raise ValueError(
            f"{caller}: got the layout {layout!r} for a {name}; expected one of {known}. Take one of those."
        )
    return family
