"""Vision transformers as transformers, timm and torchvision hold them.

timm's models with mean pooling normalise after pooling; ours normalises before, so they are not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from jaxmodels.convert.family import (
    Family,
    Weight,
    classes_of,
    conv,
    dense,
    follow,
    heads_apart,
    heads_together,
    image_of_size,
    labels,
    norm,
    number,
    state_dict,
    timm,
)
from jaxmodels.models import vit
from jaxmodels.models.vit import ViT

FOLLOWED: dict[str, Any] = {"hidden_act": "gelu", "qkv_bias": True}
HEADS = {"ViTForImageClassification": True, "ViTModel": False}
DINO = {"size": 518, "patch": 14, "layer_scale": 1e-5}
TIMM = {
    "vit_tiny_patch16_224": vit.vit_ti16,
    "vit_small_patch16_224": vit.vit_s16,
    "vit_base_patch16_224": vit.vit_b16,
    "vit_base_patch32_224": partial(vit.vit_b, patch=32),
    "vit_large_patch16_224": vit.vit_l16,
    "vit_huge_patch14_224": vit.vit_h14,
    "deit_tiny_patch16_224": vit.vit_ti16,
    "deit_small_patch16_224": vit.vit_s16,
    "deit_base_patch16_224": vit.vit_b16,
    "vit_small_patch14_dinov2": partial(vit.vit_s, **DINO),
    "vit_base_patch14_dinov2": partial(vit.vit_b, **DINO),
    "vit_large_patch14_dinov2": partial(vit.vit_l, **DINO),
}


def _model(config: Mapping[str, Any]) -> ViT:
    follow(config, FOLLOWED)
    return ViT(
        classes=classes_of(config, HEADS),
        width=number(config, "hidden_size"),
        depth=number(config, "num_hidden_layers"),
        heads=number(config, "num_attention_heads"),
        patch=number(config, "patch_size"),
        size=number(config, "image_size"),
        hidden_width=number(config, "intermediate_size"),
        epsilon=number({"layer_norm_eps": 1e-12, **config}, "layer_norm_eps", float),
    )


def _config(model: ViT) -> dict[str, Any]:
    height, width = (model.size,) * 2 if isinstance(model.size, int) else model.size
    settings = {"pool": model.pool, "registers": model.registers, "layer_scale": model.layer_scale}
    if settings != {"pool": "token", "registers": 0, "layer_scale": 0.0} or height != width:
        raise ValueError(
            f"vit: got {settings} for images of {height}x{width}; expected what transformers can say, a "
            "class token, no registers, no scale and square images. Keep it as a checkpoint."
        )
    return {
        "model_type": "vit",
        "architectures": ["ViTForImageClassification" if model.classes else "ViTModel"],
        "hidden_size": model.width,
        "num_hidden_layers": model.depth,
        "num_attention_heads": model.heads,
        "intermediate_size": model.hidden_width or 4 * model.width,
        "image_size": height,
        "patch_size": model.patch,
        "layer_norm_eps": model.epsilon,
        **FOLLOWED,
        **labels(model.classes),
    }


def _row(ours: str, theirs: str) -> Weight:
    """A parameter that they keep with a leading axis of 1."""
    return Weight(ours, (theirs,), lambda x: x[0], lambda x: x[None])


def _thirds(template: str, heads: int) -> list[Weight]:
    """Queries, keys and values, which they keep in three tensors. template: a name without its last part."""
    found = []
    for leaf, theirs in (("kernel", "weight"), ("bias", "bias")):
        names = tuple(f"{template.format(part)}.{theirs}" for part in ("query", "key", "value"))

        def read(*parts: Any) -> Any:
            return heads_apart(heads)(jnp.concatenate([part.T for part in parts], -1))

        def write(x: Any) -> Any:
            x, D = heads_together(heads)(x), x.shape[-1] // 3
            return tuple(x[..., i * D : (i + 1) * D].T for i in range(3))

        found.append(Weight(f"blocks/qkv/{leaf}", names, read, write))
    return found


def _joined(kernel: str, bias: str, heads: int) -> list[Weight]:
    """Queries, keys and values, which they keep in one tensor, one after another."""

    def read(x: Any) -> Any:
        return heads_apart(heads)(x.T)

    def write(x: Any) -> Any:
        return heads_together(heads)(x).T

    return [
        Weight(f"blocks/qkv/{leaf}", (name,), read, write)
        for leaf, name in (("kernel", kernel), ("bias", bias))
    ]


def _transformers(model: ViT) -> list[Weight]:
    layer = "vit.encoder.layer.{}."
    found = [
        _row("token", "vit.embeddings.cls_token"),
        _row("position", "vit.embeddings.position_embeddings"),
        *conv("embed", "vit.embeddings.patch_embeddings.projection", bias=True),
        *_thirds("vit.encoder.layer.{{}}.attention.attention.{}", model.heads),
        *dense("blocks/out", layer + "attention.output.dense"),
        *dense("blocks/up", layer + "intermediate.dense"),
        *dense("blocks/down", layer + "output.dense"),
        *norm("blocks/norm_attention", layer + "layernorm_before"),
        *norm("blocks/norm_mlp", layer + "layernorm_after"),
        *norm("norm", "vit.layernorm"),
    ]
    return found + dense("head", "classifier") if model.classes else found


def _timm(model: ViT) -> list[Weight]:
    layer = "blocks.{}."
    found = [
        _row("token", "cls_token"),
        _row("position", "pos_embed"),
        *conv("embed", "patch_embed.proj", bias=True),
        *_joined(layer + "attn.qkv.weight", layer + "attn.qkv.bias", model.heads),
        *dense("blocks/out", layer + "attn.proj"),
        *dense("blocks/up", layer + "mlp.fc1"),
        *dense("blocks/down", layer + "mlp.fc2"),
        *norm("blocks/norm_attention", layer + "norm1"),
        *norm("blocks/norm_mlp", layer + "norm2"),
        *norm("norm", "norm"),
    ]
    if model.layer_scale:
        found += [
            Weight(f"blocks/scale_{ours}", (f"{layer}ls{i}.gamma",))
            for i, ours in ((1, "attention"), (2, "mlp"))
        ]
    return found + dense("head", "head") if model.classes else found


def _torchvision(model: ViT) -> list[Weight]:
    layer = "encoder.layers.encoder_layer_{}."
    found = [
        _row("token", "class_token"),
        _row("position", "encoder.pos_embedding"),
        *conv("embed", "conv_proj", bias=True),
        *_joined(layer + "self_attention.in_proj_weight", layer + "self_attention.in_proj_bias", model.heads),
        *dense("blocks/out", layer + "self_attention.out_proj"),
        *dense("blocks/up", layer + "mlp.0"),
        *dense("blocks/down", layer + "mlp.3"),
        *norm("blocks/norm_attention", layer + "ln_1"),
        *norm("blocks/norm_mlp", layer + "ln_2"),
        *norm("norm", "encoder.ln"),
    ]
    return found + dense("head", "heads.head") if model.classes else found


def _token(weights: Any) -> Any:
    """The weights of models with a class token; a state dict of other models has other names."""

    def checked(model: ViT) -> list[Weight]:
        if model.pool != "token" or model.registers:
            raise ValueError(
                f"vit: got pool {model.pool!r} and {model.registers} registers; expected a class token and "
                "none. Take a model of those."
            )
        return weights(model)

    return checked


FAMILIES = (
    Family(
        ("vit",),
        _model,
        _config,
        _token(_transformers),
        ignored=r"^(vit\.)?pooler\.|mask_token$",
        prefixes=("vit.",),
        modules=(ViT,),
        inputs=image_of_size,
    ),
    timm(TIMM, _token(_timm), (ViT,), inputs=image_of_size),
    state_dict(_token(_torchvision), (ViT,), inputs=image_of_size),
)
