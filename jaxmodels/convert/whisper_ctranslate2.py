"""Whisper as CTranslate2 stores it, under the names and with the settings of Hugging Face folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.convert.ctranslate2 import FILE, open_ctranslate2
from jaxmodels.convert.tensors import Tensor
from jaxmodels.data.formats.json_file import read_object

SPECIFICATION = "WhisperSpec"
ENGLISH = 51864  # tokens of the models of English alone; the others have one more for a language at least
SETTINGS = {  # numbers without axes, and the only value that is followed; others are ignored
    "pre_norm": 1,
    "activation": 3,  # GELU by the error function
    "scale_embeddings": 0,
    "start_from_zero_embedding": 0,
    "alibi": 0,
}
PLACES = {  # of modules that are no blocks
    "decoder/embeddings/weight": "model.decoder.embed_tokens.weight",
    "decoder/projection/weight": "proj_out.weight",
    "decoder/position_encodings/encodings": "model.decoder.embed_positions.weight",
    "encoder/position_encodings/encodings": "model.encoder.embed_positions.weight",
}
BLOCK = {  # of a block's modules; of several, the rows of one tensor after another
    "self_attention/layer_norm": ("self_attn_layer_norm",),
    "self_attention/linear_0": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "self_attention/linear_1": ("self_attn.out_proj",),
    "attention/layer_norm": ("encoder_attn_layer_norm",),
    "attention/linear_0": ("encoder_attn.q_proj",),
    "attention/linear_1": ("encoder_attn.k_proj", "encoder_attn.v_proj"),
    "attention/linear_2": ("encoder_attn.out_proj",),
    "ffn/layer_norm": ("final_layer_norm",),
    "ffn/linear_0": ("fc1",),
    "ffn/linear_1": ("fc2",),
}
KINDS = {"weight": "weight", "bias": "bias", "gamma": "weight", "beta": "bias"}


class Rows(NamedTuple):
    """One of so many equal parts of a tensor's rows."""

    tensor: Tensor
    part: int
    parts: int

    @property
    def path(self) -> Path:
        """The file."""
        return self.tensor.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the part."""
        rows, *rest = self.tensor.shape
        return (rows // self.parts, *rest)

    def read(self) -> np.ndarray:
        """The values, memory-mapped and read-only."""
        size = self.shape[0]
        return self.tensor.read()[self.part * size : (self.part + 1) * size]


def open_whisper(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(config.json as transformers has it, tensors by transformers' names) of a folder of CTranslate2."""
    path = folder / FILE
    specification, tensors = open_ctranslate2(path)
    if specification != SPECIFICATION:
        raise ValueError(
            f"{path}: got a {specification[:80]}; expected a {SPECIFICATION}, the only kind of CTranslate2 "
            "that is read. Take the model's Hugging Face folder."
        )
    numbers = {name: _number(tensor) for name, tensor in tensors.items() if not tensor.shape}
    for name, value in numbers.items():
        want = SETTINGS.get(name.rpartition("/")[2])
        if want is not None and value != want:
            raise ValueError(
                f"{path}: got {name} {value}; expected {want}, the only value that is followed. Take another "
                "model."
            )
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if tensor.shape and not name.startswith("decoder/alignment_"):
            if tensor.dtype.kind == "i":
                raise ValueError(
                    f"{path}: got {name} as {tensor.dtype}; expected float16, bfloat16 or float32. Convert "
                    "the model without quantization."
                )
            found.update(_renamed(path, name, tensor))
    return _config(folder, tensors, numbers), found


def _number(tensor: Tensor) -> int | float:
    with tensor.path.open("rb") as file:
        file.seek(tensor.offset)
        return np.frombuffer(file.read(tensor.dtype.itemsize), tensor.dtype)[0].item()


def _renamed(path: Path, name: str, tensor: Tensor) -> dict[str, Any]:
    """A variable under transformers' name; the parts of a joined one, without its keys' bias, which are 0.

    A bias of keys would add the same to all scores of a softmax.
    """
    if name in PLACES:
        return {PLACES[name]: tensor}
    module, _, last = name.rpartition("/")
    kind, side = KINDS.get(last), module.partition("/")[0]
    block = re.fullmatch(r"(encoder|decoder)/layer_(\d{1,4})/(.+)", module)
    if kind and block and block[3] in BLOCK:
        parts = BLOCK[block[3]]
        if tensor.shape[0] % len(parts):
            raise ValueError(
                f"{path}: got {name} of the shape {list(tensor.shape)}; expected rows in {len(parts)} equal "
                "parts. Get the file again."
            )
        names = [f"model.{block[1]}.layers.{int(block[2])}.{part}.{kind}" for part in parts]
        rows = [Rows(tensor, i, len(parts)) if len(parts) > 1 else tensor for i in range(len(parts))]
        pairs = zip(names, rows, strict=True)
        return {theirs: row for theirs, row in pairs if not theirs.endswith("k_proj.bias")}
    if kind and module in ("encoder/layer_norm", "decoder/layer_norm", "encoder/conv1", "encoder/conv2"):
        return {f"model.{side}.{module.partition('/')[2]}.{kind}": tensor}
    return {name: tensor}  # the loader says that nothing uses it


def _config(folder: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, Any]) -> dict[str, Any]:
    def shape(name: str, axes: int) -> tuple[int, ...]:
        found = tensors[name].shape if name in tensors else ()
        if len(found) != axes:
            raise ValueError(
                f"{folder / FILE}: got {name} of the shape {list(found)}; expected {axes} axes. Get the file "
                "again."
            )
        return found

    V, M = shape("decoder/embeddings/weight", 2)
    depth = {
        side: len(
            {name.split("/")[1] for name in tensors if name.startswith(f"{side}/layer_")} - {"layer_norm"}
        )
        for side in ("encoder", "decoder")
    }
    settings = read_object(folder / "config.json") if (folder / "config.json").is_file() else {}
    end = 50256 if V == ENGLISH else 50257
    return {
        "model_type": "whisper",
        "vocab_size": V,
        "d_model": M,
        "num_mel_bins": shape("encoder/conv1/weight", 3)[1],
        "max_source_positions": shape("encoder/position_encodings/encodings", 2)[0],
        "max_target_positions": shape("decoder/position_encodings/encodings", 2)[0],
        **{f"{side}_layers": depth[side] for side in depth},
        **{f"{side}_attention_heads": numbers.get(f"{side}/num_heads") for side in depth},
        **{f"{side}_ffn_dim": shape(f"{side}/layer_0/ffn/linear_0/weight", 2)[0] for side in depth},
        "suppress_tokens": settings.get("suppress_ids", []),
        "begin_suppress_tokens": settings.get("suppress_ids_begin", []),
        **({"eos_token_id": end, "pad_token_id": end, "bos_token_id": end} if V >= ENGLISH else {}),
        **({"decoder_start_token_id": end + 1} if V >= ENGLISH else {}),
    }


def generation_config(
    config: Mapping[str, Any], token: Callable[[str], int | None], decode: Callable[[list[int]], str]
) -> dict[str, Any]:
    """The generation_config.json that transformers needs beside such a model.

    token: of a piece of the tokenizer; decode: its text of tokens.
    """
    start, end = token("<|startoftranscript|>"), token("<|endoftext|>")
    tasks = {name: token(f"<|{name}|>") for name in ("transcribe", "translate")}
    languages: dict[str, int] = {}
    if start is not None and None not in tasks.values():
        numbers = range(start + 1, min(number for number in tasks.values() if number is not None))
        languages = {decode([number]).strip(): number for number in numbers}
    multilingual = config["vocab_size"] != ENGLISH
    settings: dict[str, Any] = {
        "suppress_tokens": config["suppress_tokens"],
        "begin_suppress_tokens": config["begin_suppress_tokens"],
        "decoder_start_token_id": start,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), end),
        "no_timestamps_token_id": token("<|notimestamps|>"),
        "prev_sot_token_id": token("<|startofprev|>"),
        "max_initial_timestamp_index": 50,
        "max_length": config["max_target_positions"],
        "return_timestamps": False,
        "is_multilingual": multilingual,
        **({"lang_to_id": languages, "task_to_id": tasks} if multilingual else {}),
    }
    return {name: value for name, value in settings.items() if value is not None}
