"""ResNets as transformers, timm and torchvision hold them, and akamaster's for CIFAR.

The last are of github.com/akamaster/pytorch_resnet_cifar10. timm and torchvision have the same names.
transformers has neither groups nor squeeze-excite.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from jaxmodels.convert.family import (
    Family,
    Weight,
    classes_of,
    conv_norm,
    dense,
    follow,
    labels,
    number,
    numbers,
    one_image,
    pointwise,
    state_dict,
    timm,
)
from jaxmodels.models import resnet
from jaxmodels.models.resnet import Basic, Bottleneck, CifarResNet, ResNet, SqueezeExcite

BLOCKS: dict[str, Any] = {"basic": Basic, "bottleneck": Bottleneck}
FOLLOWED: dict[str, Any] = {
    "hidden_act": "relu",
    "downsample_in_first_stage": False,
    "downsample_in_bottleneck": False,
}
HEADS = {"ResNetForImageClassification": True, "ResNetModel": False, "ResNetBackbone": False}
TIMM = {
    name: getattr(resnet, name)
    for name in (
        *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"),
        *("resnext50_32x4d", "resnext101_32x8d", "wide_resnet50_2", "wide_resnet101_2", "seresnet50"),
    )
}


def _model(config: Mapping[str, Any]) -> ResNet:
    follow(config, FOLLOWED)
    kind = config.get("layer_type", "bottleneck")
    if not isinstance(kind, str) or kind not in BLOCKS:
        raise ValueError(
            f"resnet: got layer_type {kind!r}; expected {' or '.join(BLOCKS)}. Take another model."
        )
    block = BLOCKS[kind]
    sizes, depths = numbers(config, "hidden_sizes", 1_000_000), numbers(config, "depths", 10_000)
    if len(sizes) != len(depths) or any(size % block.expansion for size in sizes):
        raise ValueError(
            f"resnet: got hidden_sizes {sizes} and depths {depths}; expected both for each stage, sizes "
            f"divisible by {block.expansion}. Correct config.json."
        )
    return ResNet(
        classes=classes_of(config, HEADS),
        depths=depths,
        block=block,
        widths=tuple(size // block.expansion for size in sizes),
        stem_width=number(config, "embedding_size"),
    )


def _config(model: ResNet) -> dict[str, Any]:
    kind = next((name for name, block in BLOCKS.items() if model.block is block), None)
    settings = {"groups": model.groups, "base_width": model.base_width, "stem": model.stem}
    if kind is None or settings != {"groups": 1, "base_width": 64, "stem": "pool"}:
        raise ValueError(
            f"resnet: got blocks of {model.block.__name__} with {settings}; expected what transformers can "
            "say, plain ones and the stem that pools. Write timm's layout, or keep it as a checkpoint."
        )
    return {
        "model_type": "resnet",
        "architectures": ["ResNetForImageClassification" if model.classes else "ResNetModel"],
        "embedding_size": model.stem_width,
        "hidden_sizes": [width * BLOCKS[kind].expansion for width in model.widths],
        "depths": list(model.depths),
        "layer_type": kind,
        **FOLLOWED,
        **labels(model.classes),
    }


class _Names(NamedTuple):
    """Prefixes of convolution and normalisation; {s}, {b} and {c} index stage, block and convolution."""

    stem: tuple[str, str]
    layer: tuple[str, str]
    shortcut: tuple[str, str]
    head: str
    first: int  # index of stages and convolutions


THEIRS = "resnet.encoder.stages.{s}.layers.{b}."
TRANSFORMERS = _Names(
    ("resnet.embedder.embedder.convolution", "resnet.embedder.embedder.normalization"),
    (THEIRS + "layer.{c}.convolution", THEIRS + "layer.{c}.normalization"),
    (THEIRS + "shortcut.convolution", THEIRS + "shortcut.normalization"),
    "classifier.1",
    first=0,
)
TORCHVISION = _Names(
    ("conv1", "bn1"),
    ("layer{s}.{b}.conv{c}", "layer{s}.{b}.bn{c}"),
    ("layer{s}.{b}.downsample.0", "layer{s}.{b}.downsample.1"),
    "fc",
    first=1,
)
AKAMASTER = TORCHVISION._replace(
    shortcut=("layer{s}.{b}.shortcut.0", "layer{s}.{b}.shortcut.1"), head="linear"
)


def _stages(model: ResNet | CifarResNet) -> Iterator[tuple[int, int, bool]]:
    """Depth, convolutions in a block, and whether the first block projects its shortcut."""
    if isinstance(model, CifarResNet):
        for stage in range(len(model.widths)):
            yield (model.depth - 2) // 6, 2, stage > 0 and model.option == "B"
        return
    expansion = model.block.expansion  # type: ignore[attr-defined]
    for stage, (depth, width) in enumerate(zip(model.depths, model.widths, strict=True)):
        yield depth, 3 if expansion > 1 else 2, stage > 0 or width * expansion != model.stem_width


def _weights(model: ResNet | CifarResNet, names: _Names) -> list[Weight]:
    def layer(ours: str, theirs: tuple[str, str], s: int = 0, b: int = 0, c: int = 0) -> list[Weight]:
        numbers = {"s": s + names.first, "b": b, "c": c + names.first}
        of_conv, of_norm = (name.format(**numbers) for name in theirs)
        return conv_norm(ours, of_conv, of_norm)

    found = layer("stem", names.stem)
    for s, (depth, convolutions, projects) in enumerate(_stages(model)):
        for b in range(depth):
            block = f"stage_{s + 1}_block_{b}"
            for c in range(convolutions):
                found += layer(f"{block}/conv_{c + 1}", names.layer, s, b, c)
            if b == 0 and projects:
                found += layer(f"{block}/shortcut", names.shortcut, s)
            if isinstance(model, ResNet) and issubclass(model.block, SqueezeExcite):
                for ours, theirs in (("squeeze", "fc1"), ("excite", "fc2")):
                    found += pointwise(f"{block}/{ours}", f"layer{s + 1}.{b}.se.{theirs}")
    return found + dense("head", names.head) if model.classes else found


FAMILIES = (
    Family(
        ("resnet",),
        _model,
        _config,
        lambda model: _weights(model, TRANSFORMERS),
        prefixes=("resnet.",),
        modules=(ResNet,),
        inputs=one_image,
    ),
    timm(TIMM, lambda model: _weights(model, TORCHVISION), (ResNet,)),
    state_dict(lambda model: _weights(model, TORCHVISION), (ResNet,)),
    state_dict(lambda model: _weights(model, AKAMASTER), (CifarResNet,), layout="akamaster"),
)
