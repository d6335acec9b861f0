"""Voices of Piper: VITS as an ONNX file, with a JSON file of its phonemes and rate beside it.

The file's initializers are read, and of the graph how they are connected; nothing of it is executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels.convert.assemble import Source
from jaxmodels.convert.family import Family, Weight
from jaxmodels.convert.load import Pretrained, read_source
from jaxmodels.convert.numpy_file import ArrayTensor
from jaxmodels.convert.onnx_file import Graph, Node, open_onnx
from jaxmodels.convert.vits import own_name, two_phonemes
from jaxmodels.convert.vits import weights as vits_weights
from jaxmodels.models.hifi_gan import HiFiGAN
from jaxmodels.models.vits import VITS

EMBEDDING, SHIFT, LOG_SCALE = "enc_p.emb.weight", "dp.flows.0.m", "dp.flows.0.logs"


def load_piper(path: str | os.PathLike[str]) -> Pretrained:
    """The model of a voice's .onnx file; a ValueError where the file is no VITS of one speaker."""
    path = Path(path)
    graph = open_onnx(path)
    if len(graph.inputs) != 3:
        raise ValueError(
            f"{path}: got the inputs {', '.join(graph.inputs)[:200]}; expected phonemes, their number and "
            "three scales, as voices of one speaker have. Take such a voice."
        )
    tensors = dict(graph.tensors)
    _name_embedding(graph, tensors)
    _name_scale(graph, tensors)
    try:
        model = _model(graph, tensors)
    except (KeyError, IndexError, TypeError, ValueError, ZeroDivisionError) as error:
        raise ValueError(
            f"{path}: got tensors that make no VITS ({type(error).__name__}: {str(error)[:200]}); expected "
            "those of a voice of Piper. Get the file again, or take another voice."
        ) from error
    return read_source(model, Source(path, tensors, FAMILY, "voice of Piper", "its graph"))


def _name_embedding(graph: Graph, tensors: dict[str, ArrayTensor]) -> None:
    """The table whose rows the first input chooses; the exporter may have named it anything."""
    for node in graph.nodes:
        if node.kind == "Gather" and node.inputs[1:] == (graph.inputs[0],) and node.inputs[0] in tensors:
            tensors[EMBEDDING] = tensors.pop(node.inputs[0])._replace(name=EMBEDDING)
            return


def _name_scale(graph: Graph, tensors: dict[str, ArrayTensor]) -> None:
    """The scale of the durations' last flow, of which the exporter keeps exp(-scale), after the shift."""
    shifted = {out for node in graph.nodes if SHIFT in node.inputs for out in node.outputs}
    for node in graph.nodes:
        if node.kind == "Mul" and shifted & {*node.inputs} and LOG_SCALE not in tensors:
            for name in node.inputs:
                if name in tensors and tensors[name].shape == tensors[SHIFT].shape:
                    factor = tensors.pop(name)
                    if not (factor.values > 0).all():
                        raise ValueError(
                            f"{factor.path}: got a factor {name!r} that is not above 0; expected exp(-scale)."
                            " Get the file again."
                        )
                    tensors[LOG_SCALE] = factor._replace(name=LOG_SCALE, values=-np.log(factor.values))
                    return


def _model(graph: Graph, tensors: Mapping[str, ArrayTensor]) -> VITS:
    """The sizes, from the tensors' shapes and the convolutions' attributes."""
    shape = {name: tensor.shape for name, tensor in tensors.items()}
    node_of = {node.inputs[1]: node for node in graph.nodes if node.kind in ("Conv", "ConvTranspose")}
    vocabulary, width = shape[EMBEDDING]
    _, distances, head_width = shape["enc_p.encoder.attn_layers.0.emb_rel_k"]
    hidden_width, _, kernel = shape["enc_p.encoder.ffn_layers.0.conv_1.weight"]
    return VITS(
        vocabulary,
        _decoder(shape, node_of),
        width=width,
        depth=_count(r"enc_p\.encoder\.attn_layers\.(\d+)\.", shape),
        heads=width // head_width,
        hidden_width=hidden_width,
        kernel=kernel,
        window=distances // 2,
        latent=shape["enc_p.proj.weight"][0] // 2,
        couplings=_count(r"flow\.flows\.(\d+)\.", shape),
        coupling_depth=_count(r"flow\.flows\.0\.enc\.in_layers\.(\d+)\.", shape),
        coupling_kernel=shape["flow.flows.0.enc.in_layers.0.weight"][2],
        dilation_rate=node_of["flow.flows.0.enc.in_layers.1.weight"].attributes["dilations"][0],
        duration_kernel=shape["dp.convs.convs_sep.0.weight"][2],
        duration_depth=_count(r"dp\.convs\.convs_sep\.(\d+)\.", shape),
        duration_couplings=_count(r"dp\.flows\.(\d+)\.pre\.", shape),
        bins=(shape["dp.flows.3.proj.weight"][0] + 1) // 3,
    )


def _decoder(shape: Mapping[str, tuple[int, ...]], node_of: Mapping[str, Node]) -> HiFiGAN:
    ups = [f"dec.ups.{i}.weight" for i in range(_count(r"dec\.ups\.(\d+)\.", shape))]
    kernels = _count(r"dec\.resblocks\.(\d+)\.", shape) // len(ups)
    pairs = any(".convs1." in name for name in shape)
    first = "convs1" if pairs else "convs"
    blocks = [
        [
            f"dec.resblocks.{j}.{first}.{i}.weight"
            for i in range(_count(rf"dec\.resblocks\.{j}\.{first}\.(\d+)\.", shape))
        ]
        for j in range(kernels)
    ]
    decoder = HiFiGAN(
        channels=shape["dec.conv_pre.weight"][0],
        strides=tuple(node_of[name].attributes["strides"][0] for name in ups),
        kernels=tuple(shape[name][2] for name in ups),
        block_kernels=tuple(shape[names[0]][2] for names in blocks),
        block_dilations=tuple(
            tuple(node_of[name].attributes["dilations"][0] for name in names) for names in blocks
        ),
        block="pairs" if pairs else "single",
        last_bias=False,
    )
    decoder.check()
    return decoder


def _count(pattern: str, names: Iterable[str]) -> int:
    """How many numbers the pattern finds in the names, at most 1000."""
    found = {match[1] for name in names if (match := re.match(pattern, name))}
    if not 0 < len(found) <= 1000:
        raise ValueError(f"{len(found)} tensors named {pattern}")
    return len(found)


def weights(model: VITS) -> list[Weight]:
    """Every parameter and its name in VITS' own code."""
    single = isinstance(model.decoder, HiFiGAN) and model.decoder.block == "single"

    def named(weight: Weight) -> Weight:
        (name,) = weight.names
        name = own_name(name)
        return weight._replace(names=(name.replace(".convs1.", ".convs.") if single else name,))

    return [named(weight) for weight in vits_weights(model, weight_norm=False)]


def _no_model(config: Mapping[str, Any]) -> VITS:
    raise ValueError("piper: got a folder; expected the .onnx file of a voice. Call load_piper.")


FAMILY = Family(
    kinds=(),
    model=_no_model,
    config=lambda model: {},
    weights=weights,
    ignored=r"^/|^\d+$|^onnx::(?!Conv|MatMul|Gemm)",  # constants of the graph
    modules=(VITS,),
    inputs=two_phonemes,
    layout="piper",
)
