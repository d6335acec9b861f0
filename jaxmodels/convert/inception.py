"""GoogLeNet and Inception v3 as torchvision holds them, the second also as timm does, in the same names.

Their files have the auxiliary heads; a model without leaves them out.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.convert.family import Weight, conv_norm, dense, flattened, state_dict, timm
from jaxmodels.models.inception import V3, GoogLeNet, InceptionV3, inception_v3


def _layer(ours: str, theirs: str) -> list[Weight]:
    return conv_norm(ours, f"{theirs}.conv", f"{theirs}.bn")


def _google(model: GoogLeNet) -> list[Weight]:
    found = [weight for i in range(1, len(model.stem) + 1) for weight in _layer(f"stem_{i}", f"conv{i}")]
    names = {
        "branch_0_0": "branch1",
        **{f"branch_{branch}_{j}": f"branch{branch + 1}.{j}" for branch in (1, 2) for j in (0, 1)},
        "pooled": "branch4.1",
    }
    for s, blocks in enumerate(model.stages):
        for i in range(len(blocks)):
            for ours, theirs in names.items():
                found += _layer(
                    f"stage_{s + 1}_block_{i}/{ours}", f"inception{s + 3}{'abcdefghi'[i]}.{theirs}"
                )
    for i in (1, 2) if model.auxiliary else ():
        found += _layer(f"auxiliary_{i}/conv", f"aux{i}.conv") + flattened(
            f"auxiliary_{i}/dense", f"aux{i}.fc1", 4
        )
        found += dense(f"auxiliary_{i}/head", f"aux{i}.fc2")
    return found + dense("head", "fc") if model.classes else found


SEVEN = ("branch7x7_1", "branch7x7_2", "branch7x7_3")
STEM = ("1a_3x3", "2a_3x3", "2b_3x3", "3b_1x1", "4a_3x3")
NAMES: dict[str, tuple[tuple[str, ...], ...]] = {  # of the branches' convolutions, by kind of block
    "A": (
        ("branch1x1",),
        ("branch5x5_1", "branch5x5_2"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3"),
    ),
    "B": (("branch3x3",), ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")),
    "C": (("branch1x1",), SEVEN, tuple(f"branch7x7dbl_{i}" for i in range(1, 6))),
    "D": (("branch3x3_1", "branch3x3_2"), tuple(f"branch7x7x3_{i}" for i in range(1, 5))),
    "E": (
        ("branch1x1",),
        ("branch3x3_1", "branch3x3_2a branch3x3_2b"),
        ("branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3a branch3x3dbl_3b"),
    ),
}
BLOCKS = (("A5b", "A5c", "A5d"), ("B6a", "C6b", "C6c", "C6d", "C6e"), ("D7a", "E7b", "E7c"))
assert [len(stage) for stage in BLOCKS] == [len(stage) for stage in V3]


def _v3(model: InceptionV3) -> list[Weight]:
    found = [weight for i, name in enumerate(STEM, 1) for weight in _layer(f"stem_{i}", f"Conv2d_{name}")]
    for s, blocks in enumerate(BLOCKS, 1):
        for b, block in enumerate(blocks):
            kind, ours, theirs = block[0], f"stage_{s}_block_{b}/", f"Mixed_{block[1:]}."
            for i, names in enumerate(NAMES[kind]):
                for j, name in enumerate(names):
                    both = name.split()
                    for part, letter in zip(both, "ab" if len(both) > 1 else [""], strict=True):
                        found += _layer(f"{ours}branch_{i}_{j}{letter}", theirs + part)
            if kind in "ACE":
                found += _layer(f"{ours}pooled", f"{theirs}branch_pool")
    if model.auxiliary:
        found += _layer("auxiliary_conv_1", "AuxLogits.conv0") + _layer("auxiliary_conv_2", "AuxLogits.conv1")
        found += dense("auxiliary_head", "AuxLogits.fc")
    return found + dense("head", "fc") if model.classes else found


def _large(model: Any) -> tuple:
    """An image of 299 x 299 pixels in three colours."""
    return (jax.ShapeDtypeStruct((1, 299, 299, 3), jnp.float32),)


AUXILIARY = r"^(aux[12]|AuxLogits)\."
FAMILIES = (
    timm({"inception_v3": inception_v3}, _v3, (InceptionV3,), ignored=AUXILIARY, inputs=_large),
    state_dict(_v3, (InceptionV3,), ignored=AUXILIARY, inputs=_large),
    state_dict(_google, (GoogLeNet,), ignored=AUXILIARY),
)
