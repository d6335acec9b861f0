"""Weights with NaN or infinite values are refused by every reader, by file, tensor and count."""

from __future__ import annotations

import itertools
import json
import re

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from instances import first

from jaxmodels import cli
from jaxmodels.convert.llama2c import save_llama2c
from jaxmodels.convert.load import load_pretrained, load_weights
from jaxmodels.convert.save import convert, save_pretrained
from jaxmodels.convert.tensors import finite, open_file, write_file
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama

MODEL = GPT(11, 16, 8, 2, 2)
pytestmark = pytest.mark.fast


def random(model):
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)


@pytest.fixture
def release(tmp_path):
    folder = tmp_path / "release"
    save_pretrained(folder, MODEL, random(MODEL))
    return folder


def arrays(folder):
    return {name: np.array(tensor.read()) for name, tensor in open_file(folder / "model.safetensors").items()}


def rewritten(folder, tensors):
    write_file(
        folder / "model.safetensors", {name: (x.shape, x.dtype, lambda x=x: x) for name, x in tensors.items()}
    )


def said(path, name, count, size):
    return re.escape(
        f"{path}: got {count} NaN or infinite of the {size} values of '{name}'; expected finite ones. Get"
    )


@pytest.mark.slow
def test_bytes_that_were_overwritten_are_found_by_the_loader_and_by_convert(release, tmp_path, capsys):
    """100 float32 values of 0xFF bytes are 100 NaN, of the 256 values of a matrix in the second layer."""
    path, name = release / "model.safetensors", "transformer.h.1.mlp.c_fc.weight"
    offset = open_file(path)[name].offset
    with path.open("r+b") as file:
        file.seek(offset + 40)
        file.write(b"\xff" * 400)
    for read in (load_pretrained, lambda folder: convert(folder, tmp_path / "out")):
        with pytest.raises(ValueError, match=said(path, name, 100, 256)):
            read(release)
    assert cli.main(["convert", str(release), str(tmp_path / "out")]) == 2
    assert name in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match=said(path, name, 100, 256)):
        load_weights(MODEL, path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        *((np.float32, value) for value in (np.nan, np.inf, -np.inf)),
        *((dtype, np.nan) for dtype in (np.float64, np.float16, ml_dtypes.bfloat16)),
        *first(0, itertools.product((np.float64, np.float16, ml_dtypes.bfloat16), (np.inf, -np.inf))),
    ],
)
def test_every_floating_type_and_every_such_value_counts(release, value, dtype):
    tensors = {name: x.astype(dtype) for name, x in arrays(release).items()}
    load_pretrained(release)
    tensors["transformer.ln_f.bias"][[0, 3]] = value
    rewritten(release, tensors)
    with pytest.raises(ValueError, match=said(release / "model.safetensors", "transformer.ln_f.bias", 2, 8)):
        load_pretrained(release)


@pytest.mark.slow
def test_what_is_left_out_may_hold_anything(release):
    """The masks that GPT-2's files carry are built with infinities in some."""
    tensors = arrays(release)
    for i in range(2):
        tensors[f"transformer.h.{i}.attn.masked_bias"] = np.array(-np.inf, np.float32)
    tensors["extra"] = np.full(3, np.nan, np.float32)
    rewritten(release, tensors)
    with pytest.warns(UserWarning, match="leaves out 1 tensors: extra"):
        load_pretrained(release, ignore="^extra$")


@pytest.mark.slow
def test_a_tied_head_of_nan_is_not_blamed_on_the_tie(release):
    tensors = arrays(release)
    tensors["transformer.wte.weight"][0, 0] = np.nan
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"]
    rewritten(release, tensors)
    with pytest.raises(
        ValueError, match=said(release / "model.safetensors", "transformer.wte.weight", 1, 88)
    ):
        load_pretrained(release)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_files_of_torch(release, tmp_path, kind):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.tensor(x).to(getattr(torch, kind)) for name, x in arrays(release).items()}
    tensors["transformer.wpe.weight"][1, 2:5] = float("inf")
    (tmp_path / "config.json").write_bytes((release / "config.json").read_bytes())
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    for read in (
        lambda: load_pretrained(tmp_path),
        lambda: load_weights(MODEL, tmp_path / "pytorch_model.bin"),
    ):
        with pytest.raises(
            ValueError, match=said(tmp_path / "pytorch_model.bin", "transformer.wpe.weight", 3, 128)
        ):
            read()


@pytest.mark.slow
def test_a_shard_is_named(release):
    tensors = arrays(release)
    tensors["transformer.ln_f.weight"][0] = np.nan
    (release / "model.safetensors").unlink()
    file_of = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(tensors)}
    for file in set(file_of.values()):
        part = {name: x for name, x in tensors.items() if file_of[name] == file}
        write_file(release / file, {name: (x.shape, x.dtype, lambda x=x: x) for name, x in part.items()})
    (release / "model.safetensors.index.json").write_text(json.dumps({"weight_map": file_of}))
    with pytest.raises(
        ValueError, match=said(release / file_of["transformer.ln_f.weight"], "transformer.ln_f.weight", 1, 8)
    ):
        load_pretrained(release)


def test_a_file_of_llama2c(tmp_path):
    model = Llama(13, 8, 8, 2, 2, 2, 12)
    params = random(model)
    params["blocks"]["down"]["kernel"][1, 0, :4] = np.nan
    save_llama2c(tmp_path / "a.bin", model, params)
    with pytest.raises(ValueError, match=said(tmp_path / "a.bin", "blocks/down/kernel", 4, 192)):
        load_pretrained(tmp_path / "a.bin")


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (5,), (2, 3, 4)])
def test_tensors_of_any_shape_are_looked_through(tmp_path, shape, monkeypatch):
    monkeypatch.setattr("jaxmodels.convert.tensors.CHUNK", 4)
    x = np.ones(shape, np.float32)
    assert finite(x, tmp_path, "x") is x
    if x.size:
        x[...] = np.inf
        with pytest.raises(ValueError, match=said(tmp_path, "x", x.size, x.size)):
            finite(x, tmp_path, "x")
    assert finite(np.ones(3, bool), tmp_path, "x").all()
