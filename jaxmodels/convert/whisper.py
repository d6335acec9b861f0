"""Whisper as Hugging Face folders hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.convert.family import Family, Weight, conv, dense, follow, norm, number, transposed
from jaxmodels.models.whisper import Whisper, sinusoids

SIZES = {
    "vocabulary": "vocab_size",
    "width": "d_model",
    "depth": "encoder_layers",
    "decoder_depth": "decoder_layers",
    "heads": "encoder_attention_heads",
    "hidden_width": "encoder_ffn_dim",
    "bands": "num_mel_bins",
    "length": "max_target_positions",
}
POSITIONS = "model.encoder.embed_positions.weight"


def model(config: Mapping[str, Any]) -> Whisper:
    """The model of a config.json."""
    sizes: dict[str, Any] = {ours: number(config, name) for ours, name in SIZES.items()}
    followed = {
        "decoder_attention_heads": sizes["heads"],
        "decoder_ffn_dim": sizes["hidden_width"],
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
    }
    follow(config, followed)
    return Whisper(**sizes, frames=2 * number(config, "max_source_positions"))


def config(model: Whisper) -> dict[str, Any]:
    """What config.json must say of a model."""
    return {
        "model_type": "whisper",
        "architectures": ["WhisperForConditionalGeneration"],
        **{name: getattr(model, ours) for ours, name in SIZES.items()},
        "max_source_positions": model.frames // 2,
        "decoder_attention_heads": model.heads,
        "decoder_ffn_dim": model.hidden_width,
        "num_hidden_layers": model.depth,
        "activation_function": "gelu",
        "scale_embedding": False,
        "tie_word_embeddings": True,
        "is_encoder_decoder": True,
    }


def weights(model: Whisper) -> list[Weight]:
    """Every parameter and its names there."""
    found = [
        Weight("embed/embedding", ("model.decoder.embed_tokens.weight",)),
        Weight("positions/embedding", ("model.decoder.embed_positions.weight",)),
        *conv("conv_1", "model.encoder.conv1", bias=True),
        *conv("conv_2", "model.encoder.conv2", bias=True),
    ]
    for side in ("encoder", "decoder"):
        layer = f"model.{side}.layers.{{}}."
        found += norm(f"norm_{side}", f"model.{side}.layer_norm")
        found += norm(f"{side}/norm_attention", f"{layer}self_attn_layer_norm")
        found += norm(f"{side}/norm_mlp", f"{layer}final_layer_norm")
        found += dense(f"{side}/up", f"{layer}fc1") + dense(f"{side}/down", f"{layer}fc2")
        found += _attention(f"{side}/", f"{layer}self_attn")
    found += norm("decoder/norm_source", f"{layer}encoder_attn_layer_norm")
    return found + _attention("decoder/source_", f"{layer}encoder_attn")


def _attention(ours: str, theirs: str) -> list[Weight]:
    key = Weight(f"{ours}key/kernel", (f"{theirs}.k_proj.weight",), transposed, transposed)
    names = {"query": "q_proj", "value": "v_proj", "out": "out_proj"}
    return [
        key,
        *(weight for name, other in names.items() for weight in dense(ours + name, f"{theirs}.{other}")),
    ]


def computed(model: Whisper) -> dict[str, np.ndarray]:
    """The encoder's positions, which the files hold and our module computes."""
    return {POSITIONS: sinusoids(model.frames // 2, model.width)}


def _frames_and_text(model: Whisper) -> tuple:
    frames = jax.ShapeDtypeStruct((1, 4, model.bands), jnp.float32)
    return (frames, jax.ShapeDtypeStruct((1, 2), jnp.int32))


FAMILY = Family(
    kinds=("whisper",),
    model=model,
    config=config,
    weights=weights,
    prefixes=("model.",),
    modules=(Whisper,),
    inputs=_frames_and_text,
    copies={"proj_out.weight": "model.decoder.embed_tokens.weight"},
    computed=computed,
)
