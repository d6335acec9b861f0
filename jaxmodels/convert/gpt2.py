"""GPT-2 as Hugging Face folders hold it. Its Conv1D keeps matrices as (inputs, outputs), as we do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxmodels.convert.family import Family, Weight, heads_apart, heads_together, same, switch
from jaxmodels.models.gpt import GPT

SIZES = {
    "vocabulary": "vocab_size",
    "length": "n_positions",
    "width": "n_embd",
    "depth": "n_layer",
    "heads": "n_head",
}
FOLLOWED: dict[str, tuple[Any, ...]] = {
    "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,),
    "scale_attn_weights": (True,),
    "scale_attn_by_inverse_layer_idx": (False,),
    "n_inner": (None,),
}


def model(config: Mapping[str, Any]) -> GPT:
    """The model of a config.json."""
    for name, values in FOLLOWED.items():
        inner = name == "n_inner" and config.get(name) in [
            4 * n for n in [config.get("n_embd")] if type(n) is int
        ]
        if config.get(name, values[0]) not in values and not inner:
            raise ValueError(
                f"gpt2: got {name} {config[name]!r}; expected {values[0]!r}, the only value that is "
                "followed. Take another model."
            )
    sizes: dict[str, Any] = {}
    for ours, name in SIZES.items():
        value = config.get(name)
        if type(value) is not int or not 0 < value < (10_000 if ours == "depth" else 2**31):
            raise ValueError(
                f"gpt2: got {name} {value!r}; expected a positive number of sensible size. Correct "
                "config.json."
            )
        sizes[ours] = value
    return GPT(**sizes, tied=switch(config, "tie_word_embeddings", True))


def config(model: GPT) -> dict[str, Any]:
    """What config.json must say of a model."""
    return {
        "model_type": "gpt2",
        "architectures": ["GPT2LMHeadModel"],
        **{name: getattr(model, ours) for ours, name in SIZES.items()},
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": model.tied,
    }


def weights(model: GPT) -> list[Weight]:
    """Every parameter and its names there."""
    layers = {
        "norm_attention": "ln_1",
        "qkv": "attn.c_attn",
        "out": "attn.c_proj",
        "norm_mlp": "ln_2",
        "up": "mlp.c_fc",
        "down": "mlp.c_proj",
    }
    found = [
        Weight("embed/embedding", ("transformer.wte.weight",)),
        Weight("position", ("transformer.wpe.weight",)),
        Weight("norm/scale", ("transformer.ln_f.weight",)),
        Weight("norm/bias", ("transformer.ln_f.bias",)),
    ]
    for ours, theirs in layers.items():
        kernel = "scale" if ours.startswith("norm") else "kernel"
        how = (heads_apart(model.heads), heads_together(model.heads)) if ours == "qkv" else (same, same)
        found.append(Weight(f"blocks/{ours}/{kernel}", (f"transformer.h.{{}}.{theirs}.weight",), *how))
        found.append(Weight(f"blocks/{ours}/bias", (f"transformer.h.{{}}.{theirs}.bias",), *how))
    return found if model.tied else [*found, Weight("head", ("lm_head.weight",))]


FAMILY = Family(
    kinds=("gpt2",),
    model=model,
    config=config,
    weights=weights,
    ignored=r"(^|\.)attn\.(masked_)?bias$",
    prefixes=("transformer.",),
    modules=(GPT,),
    copies={"lm_head.weight": "transformer.wte.weight"},
)
