"""Every family of models that can be read and written in the layouts of other libraries."""

from __future__ import annotations

from jaxmodels.convert import (
    alexnet,
    bert,
    convnext,
    gpt2,
    inception,
    llama,
    mixer,
    mobilenet,
    mtcnn,
    resnet,
    t5,
    vit,
)
from jaxmodels.convert.family import Family

IMAGE_MODULES = (alexnet, inception, resnet, mobilenet, vit, mixer, convnext, mtcnn)
FAMILIES: tuple[Family, ...] = (
    gpt2.FAMILY,
    *llama.FAMILIES,
    *bert.FAMILIES,
    t5.FAMILY,
    *(family for module in IMAGE_MODULES for family in module.FAMILIES),
)
