"""MobileNets 2 and 3 as timm and torchvision hold them. Their third versions normalise with 1e-5 and 1e-3."""

from __future__ import annotations

from functools import partial

from jaxmodels.convert.family import Weight, conv_norm, dense, pointwise, state_dict, timm
from jaxmodels.models import mobilenet
from jaxmodels.models.mobilenet import MobileNet

TIMM = {
    "mobilenetv2_100": mobilenet.mobilenet_v2,
    "mobilenetv3_large_100": partial(mobilenet.mobilenet_v3_large, epsilon=1e-5),
    "mobilenetv3_small_100": partial(mobilenet.mobilenet_v3_small, epsilon=1e-5),
}


def _torchvision(model: MobileNet) -> list[Weight]:
    found, C = conv_norm("stem", "features.0.0", "features.0.1"), model.stem
    for i, row in enumerate(model.rows):
        layers = ["wide"] if row.inner != C else []
        layers += ["filter", "excite", "narrow"] if row.excite else ["filter", "narrow"]
        prefix = f"features.{i + 1}.{'block' if model.hard else 'conv'}."
        for j, name in enumerate(layers):
            if name == "excite":
                found += pointwise(f"block_{i}/squeeze", f"{prefix}{j}.fc1") + pointwise(
                    f"block_{i}/excite", f"{prefix}{j}.fc2"
                )
            elif name == "narrow" and not model.hard:  # in version 2 the last layer is no block of its own
                found += conv_norm(f"block_{i}/narrow", f"{prefix}{j}", f"{prefix}{j + 1}")
            else:
                found += conv_norm(f"block_{i}/{name}", f"{prefix}{j}.0", f"{prefix}{j}.1")
        C = row.out
    last = f"features.{len(model.rows) + 1}."
    found += conv_norm("last", last + "0", last + "1")
    if model.dense:
        found += dense("hidden", "classifier.0")
    return (
        found + dense("head", "classifier.3" if model.dense else "classifier.1") if model.classes else found
    )


def _timm(model: MobileNet) -> list[Weight]:
    found, C, stage, block = conv_norm("stem", "conv_stem", "bn1"), model.stem, -1, 0
    for i, row in enumerate(model.rows):
        stage, block = (stage, block + 1) if i and row.out == C else (stage + 1, 0)
        prefix = f"blocks.{stage}.{block}."
        if row.inner != C:
            names = {"wide": ("conv_pw", "bn1"), "filter": ("conv_dw", "bn2"), "narrow": ("conv_pwl", "bn3")}
        else:
            names = {"filter": ("conv_dw", "bn1"), "narrow": ("conv_pw", "bn2")}
        for ours, (of_conv, of_norm) in names.items():
            found += conv_norm(f"block_{i}/{ours}", prefix + of_conv, prefix + of_norm)
        if row.excite:
            found += pointwise(f"block_{i}/squeeze", prefix + "se.conv_reduce")
            found += pointwise(f"block_{i}/excite", prefix + "se.conv_expand")
        C = row.out
    if model.dense:
        last = f"blocks.{stage + 1}.0."
        found += conv_norm("last", last + "conv", last + "bn1") + pointwise("hidden", "conv_head")
    else:
        found += conv_norm("last", "conv_head", "bn2")
    return found + dense("head", "classifier") if model.classes else found


FAMILIES = (timm(TIMM, _timm, (MobileNet,)), state_dict(_torchvision, (MobileNet,)))
