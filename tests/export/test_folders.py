"""What an exported folder holds, read again where this library is, and parameters as safetensors."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import GPT_SIZES, V

import jaxmodels
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.tensors import open_file
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.export.program import Program
from jaxmodels.export.read import read_exported
from jaxmodels.export.save import save
from jaxmodels.inference.model import Model
from jaxmodels.interfaces import Predictor
from jaxmodels.models.gpt import GPT
from jaxmodels.paths import by_path

PICTURES = "tests/files/tiny_pictures.py"


@pytest.fixture
def folder(tmp_path):
    def function(params, extra, batch):
        return {"sum": batch["x"] @ params, "longest": batch["x"].max(-1)}

    example = [{"x": np.ones(2, np.float32)}]
    params = np.arange(2, dtype=np.float32)
    return save(
        Program(function, params, {}, example, {"nan": float("nan")}),
        tmp_path / "out",
        "stablehlo",
        ("cpu",),
        "0",
    ).folder


def test_an_exported_folder_is_a_function_that_checks_its_batch(folder):
    call, about = read_exported(folder)
    outputs = call({"x": np.array([[1, 2], [3, 5]], np.float32)})
    np.testing.assert_array_equal(outputs["sum"], [2, 5])
    assert {*outputs} == {"sum", "longest"} and about["nan"] is None
    with pytest.raises(ValueError, match=r"x: got float32 \[2\]; expected float32 \[b, 2\]"):
        call({"x": np.ones(2, np.float32)})


def test_damage_and_other_files_are_refused_before_anything_reads_the_program(folder):
    program, about = folder / "model.stablehlo", folder / "export.json"
    content, text = program.read_bytes(), about.read_text()
    for at in (0, len(content) // 2, len(content) - 1):
        program.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        with pytest.raises(ValueError, match=r"by its sha256; expected .* Copy both again"):
            read_exported(folder)
    program.write_bytes(content)
    described = json.loads(text)
    wrong = [
        {},
        {**described, "format": "pickle"},
        {**described, "inputs": 3},
        {**described, "limits": {"t": 1}},
    ]
    wrong += [{**described, "inputs": {"x": {"shape": [None], "dtype": "float32"}}}]
    for one in wrong:
        about.write_text(json.dumps(one))
        with pytest.raises(ValueError, match=r"export\.json: got .*; expected "):
            read_exported(folder)
    about.write_text(text)
    program.unlink()
    program.symlink_to("/etc/hostname")
    with pytest.raises(ValueError, match="got a link"):
        read_exported(folder)


def test_a_model_of_rows_is_shown_one_as_json(tmp_path):
    rows = Predictor(
        read=lambda row: {"x": np.float32(row["size"])},
        predict=lambda params, extra, batch: batch["x"] * params,
        report=float,
        input="row",
        fields=("size",),
    )
    model = Model(tmp_path, np.float32(2), {}, rows)
    jaxmodels.export(model, tmp_path / "out", platforms="cpu", like=['{"size": 70}'])
    call, _ = read_exported(tmp_path / "out")
    np.testing.assert_array_equal(call({"x": np.array([1, 3], np.float32)})["output"], [2, 6])
    for like, said in (
        ((), r"rows with size; expected one row"),
        (["70,"], "a row as a JSON object"),
    ):
        with pytest.raises(ValueError, match=said):
            jaxmodels.export(model, tmp_path / "none", like=like)


def test_a_runs_parameters_are_safetensors_by_their_paths(tmp_path):
    jaxmodels.train(PICTURES, folder=str(tmp_path / "run"), console=jaxmodels.Console(quiet=True))
    model = jaxmodels.load(tmp_path / "run")
    done = jaxmodels.export(model, tmp_path / "out", format="safetensors")
    tensors = {name: tensor.read() for name, tensor in open_file(done.file).items()}
    assert {*tensors} == {*by_path({"params": model.params})}
    assert json.loads((tmp_path / "out" / "export.json").read_text())["classes"] == ["dark", "light"]


def test_a_folder_of_weights_is_written_in_the_form_of_its_library_and_as_a_program_with_its_tokenizer(
    tmp_path,
):
    source = tmp_path / "gpt2"
    tokenizer = Tokenizer.train(["a text, and another text"] * 9, vocabulary=280)
    model = GPT(**{**GPT_SIZES, "vocabulary": tokenizer.vocabulary})
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    save_pretrained(source, model, params)
    tokenizer.save(source / "tokenizer.json")
    jaxmodels.export(source, tmp_path / "tensors", format="safetensors")
    written = load_pretrained(tmp_path / "tensors").params
    jax.tree.map(np.testing.assert_array_equal, written, params)
    assert (tmp_path / "tensors" / "tokenizer.json").is_file()
    jaxmodels.export(source, tmp_path / "program", platforms="cpu")
    call, about = read_exported(tmp_path / "program")
    tokens = np.array([[1, 2, 3]], np.int32)
    expected = model.apply({"params": params}, tokens)
    np.testing.assert_allclose(call({"tokens": tokens})["logits"], expected, rtol=1e-5, atol=1e-5)
    assert (tmp_path / "program" / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
    assert about["limits"] == {"t": [1, 6]} and about["vocabulary"] == tokenizer.vocabulary > V
