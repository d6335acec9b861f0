"""T5, T5 v1.1 and FLAN-T5 as Hugging Face folders hold them.

Recent config.json files always say that the embeddings are tied; then "scale_decoder_outputs" tells the
versions apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from jaxmodels.convert.family import Family, Weight, number, switch, transposed
from jaxmodels.models.t5 import T5

SIZES = {
    "vocabulary": "vocab_size",
    "width": "d_model",
    "depth": "num_layers",
    "heads": "num_heads",
    "head_width": "d_kv",
    "hidden_width": "d_ff",
}
GATED = {"relu": False, "gated-gelu": True}
DEFAULTS = {"length": ("n_positions", 512), "buckets": ("relative_attention_num_buckets", 32)}
FURTHEST = ("relative_attention_max_distance", 128)


def model(config: Mapping[str, Any]) -> T5:
    """The model of a config.json."""
    sizes: dict[str, Any] = {ours: number(config, name) for ours, name in SIZES.items()}
    for ours, (name, default) in {**DEFAULTS, "furthest": FURTHEST}.items():
        sizes[ours] = number({"model_type": "t5", name: default, **config}, name)
    for name, only in (("num_decoder_layers", sizes["depth"]), ("layer_norm_epsilon", 1e-6)):
        if config.get(name, only) not in (only, None):
            raise ValueError(
                f"t5: got {name} {config[name]!r}; expected {only!r}, the only value that is followed. Take "
                "another model."
            )
    kind = config.get("feed_forward_proj", "relu")
    if not isinstance(kind, str) or kind not in GATED:
        raise ValueError(
            f"t5: got feed_forward_proj {kind!r}; expected {' or '.join(GATED)}. Take another model."
        )
    tied = switch(config, "scale_decoder_outputs", switch(config, "tie_word_embeddings", True))
    return T5(**sizes, gated=GATED[kind], tied=tied)


def config(model: T5) -> dict[str, Any]:
    """What config.json must say of a model."""
    return {
        "model_type": "t5",
        "architectures": ["T5ForConditionalGeneration"],
        **{name: getattr(model, ours) for ours, name in SIZES.items()},
        **{name: getattr(model, ours) for ours, (name, _) in DEFAULTS.items()},
        FURTHEST[0]: model.furthest,
        "num_decoder_layers": model.depth,
        "feed_forward_proj": "gated-gelu" if model.gated else "relu",
        "layer_norm_epsilon": 1e-6,
        "tie_word_embeddings": model.tied,
        "is_encoder_decoder": True,
        "decoder_start_token_id": 0,
    }


def weights(model: T5) -> list[Weight]:
    """Every parameter and its names there."""
    found = [Weight("embed/embedding", ("shared.weight",))]
    if not model.tied:
        found.append(Weight("head", ("lm_head.weight",)))
    mlp = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if model.gated else {"up": "wi", "down": "wo"}
    for side, last in (("encoder", 1), ("decoder", 2)):
        layer = f"{side}.block.{{}}.layer."
        names = {"query": "0.SelfAttention.q", "key": "0.SelfAttention.k", "value": "0.SelfAttention.v"}
        names |= {"out": "0.SelfAttention.o"}
        norms = {"norm_attention": "0.layer_norm", "norm_mlp": f"{last}.layer_norm"}
        if side == "decoder":
            names |= {
                f"source_{ours}": f"1.EncDecAttention.{ours[0]}" for ours in ("query", "key", "value", "out")
            }
            norms |= {"norm_source": "1.layer_norm"}
        names |= {ours: f"{last}.DenseReluDense.{theirs}" for ours, theirs in mlp.items()}
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found += [
            Weight(f"{side}_bias", (bias,)),
            Weight(f"norm_{side}/scale", (f"{side}.final_layer_norm.weight",)),
        ]
        found += [
            Weight(f"{side}/{ours}/kernel", (f"{layer}{name}.weight",), transposed, transposed)
            for ours, name in names.items()
        ]
        found += [Weight(f"{side}/{ours}/scale", (f"{layer}{name}.weight",)) for ours, name in norms.items()]
    return found


def _two_texts(model: T5) -> tuple:
    return (jnp.zeros((1, 2), jnp.int32), jnp.zeros((1, 2), jnp.int32))


FAMILY = Family(
    kinds=("t5",),
    model=model,
    config=config,
    weights=weights,
    # Copies of the shared matrix, which are compared with it, and an unused table of older files.
    ignored=r"^(encoder|decoder)\.embed_tokens\.weight$|^lm_head\.weight$"
    r"|^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$",
    modules=(T5,),
    inputs=_two_texts,
    copies=dict.fromkeys(
        ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"), "shared.weight"
    ),
)
