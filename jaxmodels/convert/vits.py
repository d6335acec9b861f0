"""VITS as Hugging Face folders hold it, such as those of MMS-TTS; and the same tensors under VITS' own names.

What only training needs is left out: the posterior encoder, the first coupling of the stochastic duration
predictor and the flow over durations. transformers starts those at random where it loads what is written
here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmodels.convert.family import (
    Family,
    Weight,
    follow,
    norm,
    number,
    numbers,
    spatial_first,
    spatial_last,
    switch,
)
from jaxmodels.models.hifi_gan import HiFiGAN
from jaxmodels.models.vits import VITS

SIZES = {
    "vocabulary": "vocab_size",
    "width": "hidden_size",
    "depth": "num_hidden_layers",
    "heads": "num_attention_heads",
    "hidden_width": "ffn_dim",
    "kernel": "ffn_kernel_size",
    "window": "window_size",
    "latent": "flow_size",
    "couplings": "prior_encoder_num_flows",
    "coupling_depth": "prior_encoder_num_wavenet_layers",
    "coupling_kernel": "wavenet_kernel_size",
    "dilation_rate": "wavenet_dilation_rate",
    "duration_kernel": "duration_predictor_kernel_size",
    "duration_width": "duration_predictor_filter_channels",
    "duration_depth": "depth_separable_num_layers",
    "bins": "duration_predictor_flow_bins",
    "speakers": "num_speakers",
}
FOLLOWED = {"hidden_act": "relu", "use_bias": True, "layer_norm_eps": 1e-5, "depth_separable_channels": 2}


def model(config: Mapping[str, Any]) -> VITS:
    """The model of a config.json."""
    follow(config, FOLLOWED)
    decoder = HiFiGAN(
        number(config, "upsample_initial_channel"),
        numbers(config, "upsample_rates", 10_000),
        numbers(config, "upsample_kernel_sizes", 10_000),
        numbers(config, "resblock_kernel_sizes", 10_000),
        _dilations(config),
        slope=number(config, "leaky_relu_slope", float),
        last_bias=False,
    )
    decoder.check()
    return VITS(
        decoder=decoder,
        **{ours: number(config, name) for ours, name in SIZES.items()},
        durations="stochastic" if switch(config, "use_stochastic_duration_prediction", True) else "plain",
        duration_couplings=number(config, "duration_predictor_num_flows") - 1,
        bound=number(config, "duration_predictor_tail_bound", (int, float)),
        speaker_width=number(config, "speaker_embedding_size", above=-1),
    )


def _dilations(config: Mapping[str, Any]) -> tuple[tuple[int, ...], ...]:
    values = config.get("resblock_dilation_sizes")
    if not isinstance(values, list | tuple) or not 0 < len(values) < 20:
        raise ValueError(
            f"vits: got resblock_dilation_sizes {str(values)[:80]}; expected a list of dilations for each "
            "kernel. Correct config.json."
        )
    return tuple(
        numbers({"model_type": "vits", "resblock_dilation_sizes": v}, "resblock_dilation_sizes", 10_000)
        for v in values
    )


def config(model: VITS) -> dict[str, Any]:
    """What config.json must say of a model."""
    decoder = _decoder(model)
    if decoder.block != "pairs" or decoder.last_bias:
        raise ValueError(
            f"vits: got a decoder with block={decoder.block!r} and last_bias={decoder.last_bias}; expected "
            '"pairs" and False, the only form that transformers has. Keep it as a checkpoint.'
        )
    return {
        "model_type": "vits",
        "architectures": ["VitsModel"],
        **FOLLOWED,
        **{name: getattr(model, ours) for ours, name in SIZES.items()},
        "use_stochastic_duration_prediction": model.durations == "stochastic",
        "duration_predictor_num_flows": model.duration_couplings + 1,
        "duration_predictor_tail_bound": model.bound,
        "speaker_embedding_size": model.speaker_width,
        "upsample_initial_channel": decoder.channels,
        "upsample_rates": list(decoder.strides),
        "upsample_kernel_sizes": list(decoder.kernels),
        "resblock_kernel_sizes": list(decoder.block_kernels),
        "resblock_dilation_sizes": [list(dilations) for dilations in decoder.block_dilations],
        "leaky_relu_slope": decoder.slope,
    }


def _decoder(model: VITS) -> HiFiGAN:
    if not isinstance(model.decoder, HiFiGAN):
        raise ValueError(
            f"vits: got a decoder of the class {type(model.decoder).__name__}; expected a HiFiGAN. Keep it "
            "as a checkpoint."
        )
    return model.decoder


def weights(model: VITS, *, weight_norm: bool = True) -> list[Weight]:
    """Every parameter and its names in transformers. weight_norm: whether couplings store it as two."""
    encoder = "text_encoder.encoder.layers."
    found = [Weight("embed/embedding", ("text_encoder.embed_tokens.weight",))]
    for i in range(model.depth):
        ours, theirs = f"block_{i}", f"{encoder}{i}."
        for name, other in {"query": "q", "key": "k", "value": "v", "out": "out"}.items():
            found += _dense(f"{ours}/attention/{name}", f"{theirs}attention.{other}_proj", ones=0)
        for name, other in {"relative_key": "emb_rel_k", "relative_value": "emb_rel_v"}.items():
            path = f"{ours}/attention/{name}"
            found.append(Weight(path, (f"{theirs}attention.{other}",), lambda x: x[0], lambda x: x[None]))
        found += norm(f"{ours}/norm_attention", f"{theirs}layer_norm")
        found += norm(f"{ours}/norm", f"{theirs}final_layer_norm")
        found += _conv(f"{ours}/up", f"{theirs}feed_forward.conv_1")
        found += _conv(f"{ours}/down", f"{theirs}feed_forward.conv_2")
    found += _dense("project", "text_encoder.project")
    found += _plain(model) if model.durations == "plain" else _stochastic(model)
    kinds = (_normed_conv, _normed_dense) if weight_norm else (_conv, _dense)
    for i in range(model.couplings):
        found += _coupling(f"coupling_{i}", f"flow.flows.{i}", model, *kinds)
    found += _hifi_gan("decoder", "decoder", _decoder(model))
    if model.speakers > 1:
        found.append(Weight("embed_speaker/embedding", ("embed_speaker.weight",)))
        found += _dense("duration/condition", "duration_predictor.cond")
        found += _dense("decoder/condition", "decoder.cond")
    return found


def _plain(model: VITS) -> list[Weight]:
    found = _dense("duration/out", "duration_predictor.proj")
    for i in range(2):
        found += _conv(f"duration/conv_{i}", f"duration_predictor.conv_{i + 1}")
        found += norm(f"duration/norm_{i}", f"duration_predictor.norm_{i + 1}")
    return found


def _stochastic(model: VITS) -> list[Weight]:
    theirs = "duration_predictor"
    found = [
        Weight(f"duration/{name}", (f"{theirs}.flows.0.{other}",), lambda x: x[:, 0], lambda x: x[:, None])
        for name, other in {"shift": "translate", "log_scale": "log_scale"}.items()
    ]
    found += _dense("duration/first", f"{theirs}.conv_pre") + _dense("duration/last", f"{theirs}.conv_proj")
    found += _separable("duration/layers", f"{theirs}.conv_dds", model)
    for i in range(model.duration_couplings):
        ours, flow = f"duration/coupling_{i}", f"{theirs}.flows.{i + 2}"  # flow 1 is skipped in generation
        found += _dense(f"{ours}/first", f"{flow}.conv_pre") + _dense(f"{ours}/out", f"{flow}.conv_proj")
        found += _separable(f"{ours}/layers", f"{flow}.conv_dds", model)
    return found


def _separable(ours: str, theirs: str, model: VITS) -> list[Weight]:
    found = []
    for i in range(model.duration_depth):
        found += _conv(f"{ours}/depthwise_{i}", f"{theirs}.convs_dilated.{i}")
        found += _dense(f"{ours}/pointwise_{i}", f"{theirs}.convs_pointwise.{i}")
        found += norm(f"{ours}/norm_depthwise_{i}", f"{theirs}.norms_1.{i}")
        found += norm(f"{ours}/norm_pointwise_{i}", f"{theirs}.norms_2.{i}")
    return found


def _coupling(ours: str, theirs: str, model: VITS, conv: Any, dense: Any) -> list[Weight]:
    found = _dense(f"{ours}/first", f"{theirs}.conv_pre") + _dense(f"{ours}/last", f"{theirs}.conv_post")
    for i in range(model.coupling_depth):
        found += conv(f"{ours}/layers/gate_{i}", f"{theirs}.wavenet.in_layers.{i}")
        found += dense(f"{ours}/layers/out_{i}", f"{theirs}.wavenet.res_skip_layers.{i}")
    if model.speakers > 1:
        found += dense(f"{ours}/layers/condition", f"{theirs}.wavenet.cond_layer")
    return found


def _hifi_gan(ours: str, theirs: str, decoder: HiFiGAN) -> list[Weight]:
    found = _conv(f"{ours}/first", f"{theirs}.conv_pre") + _conv(f"{ours}/last", f"{theirs}.conv_post")
    if not decoder.last_bias:
        found.pop()
    for i in range(len(decoder.strides)):
        up = f"{theirs}.upsampler.{i}"
        found += [
            Weight(f"{ours}/up_{i}/kernel", (f"{up}.weight",), _transposed, _transposed_back),
            Weight(f"{ours}/up_{i}/bias", (f"{up}.bias",)),
        ]
        for j, dilations in enumerate(decoder.block_dilations):
            block = f"{theirs}.resblocks.{i * len(decoder.block_dilations) + j}"
            names = {"first": "convs1", "second": "convs2"}
            for name, other in names.items() if decoder.block == "pairs" else [("first", "convs1")]:
                for n in range(len(dilations)):
                    found += _conv(f"{ours}/block_{i}_{j}/{name}_{n}", f"{block}.{other}.{n}")
    return found


def _transposed(x: Any) -> Any:
    """A transposed convolution's kernel: PyTorch's (inputs, outputs, k) as (k, inputs, outputs), turned."""
    return x.transpose(2, 0, 1)[::-1]


def _transposed_back(x: Any) -> Any:
    return x[::-1].transpose(1, 2, 0)


def _conv(ours: str, theirs: str) -> list[Weight]:
    return [
        Weight(f"{ours}/kernel", (f"{theirs}.weight",), spatial_first, spatial_last),
        Weight(f"{ours}/bias", (f"{theirs}.bias",)),
    ]


def _dense(ours: str, theirs: str, *, ones: int = 1) -> list[Weight]:
    """A linear layer, stored with `ones` more axes of one element, as a convolution."""

    def read(x: Any) -> Any:
        return x.reshape(x.shape[:2]).T

    def write(x: Any) -> Any:
        return x.T.reshape(*x.T.shape, *(1,) * ones)

    kernel = Weight(f"{ours}/kernel", (f"{theirs}.weight",), read, write)
    return [kernel, Weight(f"{ours}/bias", (f"{theirs}.bias",))]


def _normed(make: Any, ours: str, theirs: str) -> list[Weight]:
    """A layer whose kernel is stored as its lengths by output and its directions (arXiv:1602.07868)."""
    kernel, bias = make(ours, theirs)

    def read(length: Any, direction: Any) -> Any:
        return kernel.read(direction * (length / _lengths(direction)))

    def write(x: Any) -> Any:
        x = kernel.write(x)
        return _lengths(x), x

    names = tuple(f"{theirs}.parametrizations.weight.original{i}" for i in range(2))
    return [kernel._replace(names=names, read=read, write=write), bias]


def _lengths(x: Any) -> Any:
    math: Any = np if isinstance(x, np.ndarray) else jnp
    return math.sqrt(math.sum(x * x, axis=(1, 2), keepdims=True))


_normed_conv, _normed_dense = partial(_normed, _conv), partial(_normed, _dense)

# The names of VITS' own code, which voices of Piper have. Patterns of names of transformers.
OWN_NAMES = (
    (r"^text_encoder\.embed_tokens\.", "enc_p.emb."),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.attention\.out_proj", r"enc_p.encoder.attn_layers.\1.conv_o"),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.attention\.(.)_proj", r"enc_p.encoder.attn_layers.\1.conv_\2"),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.attention", r"enc_p.encoder.attn_layers.\1"),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.layer_norm", r"enc_p.encoder.norm_layers_1.\1"),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.final_layer_norm", r"enc_p.encoder.norm_layers_2.\1"),
    (r"^text_encoder\.encoder\.layers\.(\d+)\.feed_forward", r"enc_p.encoder.ffn_layers.\1"),
    (r"^text_encoder\.project", "enc_p.proj"),
    (r"(norm_\d|norms_\d\.\d+|norm_layers_\d\.\d+)\.weight$", r"\1.gamma"),
    (r"(norm_\d|norms_\d\.\d+|norm_layers_\d\.\d+)\.bias$", r"\1.beta"),
    (r"^duration_predictor", "dp"),
    (r"^(dp|flow)\.(.*)conv_(pre|proj|post)", r"\1.\2\3"),
    (r"\.conv_dds", ".convs"),
    (r"\.convs_dilated", ".convs_sep"),
    (r"\.convs_pointwise", ".convs_1x1"),
    (r"^dp\.flows\.0\.translate", "dp.flows.0.m"),
    (r"^dp\.flows\.0\.log_scale", "dp.flows.0.logs"),
    (r"\.wavenet\.", ".enc."),
    (r"^decoder", "dec"),
    (r"\.upsampler", ".ups"),
)


def own_name(name: str) -> str:
    """The name in VITS' own code of a tensor of transformers."""
    for pattern, replacement in OWN_NAMES:
        name = re.sub(pattern, replacement, name)
    flow = re.match(r"(dp|flow)\.flows\.(\d+)(.*)", name)
    if flow and (flow[1] == "flow" or int(flow[2]) > 0):  # there a reversal of channels follows each coupling
        index = 2 * int(flow[2]) - (flow[1] == "dp")
        name = f"{flow[1]}.flows.{index}{flow[3]}"
    return name


def two_phonemes(model: VITS) -> tuple:
    """Two phonemes of one text."""
    return (jnp.zeros((1, 2), jnp.int32),)


FAMILY = Family(
    kinds=("vits",),
    model=model,
    config=config,
    weights=weights,
    ignored=r"^posterior_encoder\.|^duration_predictor\.(post_|flows\.1\.)",
    modules=(VITS,),
    inputs=two_phonemes,
    renamed={
        ".parametrizations.weight.original0": ".weight_g",
        ".parametrizations.weight.original1": ".weight_v",
    },
)
