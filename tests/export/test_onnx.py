"""Models as ONNX: ONNX Runtime gives what the model gives, with any batch."""

from __future__ import annotations

import contextlib
import io
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import GPT_SIZES, TINY, V

import jaxmodels
from jaxmodels.export import onnx
from jaxmodels.export.obstacles import NotExportable
from jaxmodels.export.program import Program
from jaxmodels.export.save import save
from jaxmodels.inference.model import Model
from jaxmodels.models.gpt import GPT
from jaxmodels.tasks import language

with contextlib.redirect_stderr(io.StringIO()):
    pytest.importorskip(
        "jax2onnx", reason="no jax2onnx: pip install --no-deps jax2onnx==0.17.1", exc_type=ImportError
    )
pytest.importorskip("onnxruntime")

# One of each family that has to go; the others are thorough.
SOON = ("cnn-norm-dropout", "resnet-excite-dropout", "vit-registers-drops", "bert-masked", "lstm-dropout")
# Those that ONNX cannot hold, by the converter, and why.
EXCEPTIONS = {
    "moe-shared-remat": "experts are sorted, and the converter sorts no axis of any size",
    "sasrec": "the converter gives Where a type that ONNX Runtime has no kernel for",
}


@pytest.mark.parametrize(
    "tiny",
    [
        pytest.param(tiny, id=tiny.name, marks=[] if tiny.name in SOON else [pytest.mark.thorough])
        for tiny in TINY
        if tiny.outputs is not None and tiny.name not in EXCEPTIONS
    ],
)
def test_onnx_runtime_gives_what_the_model_gives_with_any_batch(tiny, tmp_path):
    params, extra = jax.jit(tiny.task.init)(jax.random.key(0), tiny.batch)
    unread = ("weight", "label", "target", "targets", "boxes", "classes", "present", "start", "end")
    example = {key: x[0] for key, x in tiny.batch.items() if key not in unread}
    done = save(Program(tiny.outputs, params, extra, [example]), tmp_path / "out", "onnx", (), "0")
    assert done.file.name == "model.onnx" and done.difference <= 1e-5


def test_a_language_model_has_any_batch_and_length_and_leaves_jax_as_it_was(tmp_path, capfd):
    model = GPT(**GPT_SIZES)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    places = (jax.numpy, jax.lax, jax.nn, nn, nn.Dense, nn.LayerNorm)
    before = [dict(vars(place)) for place in places]
    made = language.decoder(model, encode=list, decode=str)
    done = jaxmodels.export(Model(Path("gpt"), params, {}, decoder=made), tmp_path / "out", format="onnx")
    assert [dict(vars(place)) for place in places] == before
    assert capfd.readouterr() == ("", "")

    import onnxruntime

    session = onnxruntime.InferenceSession(done.file)
    tokens = np.arange(8, dtype=np.int32).reshape(2, 4) % V
    [logits] = session.run(None, {"tokens": tokens})
    np.testing.assert_allclose(logits, model.apply({"params": params}, tokens), rtol=1e-4, atol=1e-5)


def test_an_mlp_goes_and_an_operation_that_cannot_is_named(tmp_path):
    mlp = next(tiny for tiny in TINY if tiny.name == "mlp-regress")
    params, extra = mlp.task.init(jax.random.key(0), mlp.batch)
    example = {"features": mlp.batch["features"][0]}
    save(Program(mlp.outputs, params, extra, [example]), tmp_path / "mlp", "onnx", (), "0")

    def ranks(params, extra, batch):
        return jnp.sort(batch["features"], axis=0)

    with pytest.raises(NotExportable, match=r"export to onnx: got .*sort"):
        save(Program(ranks, params, extra, [example]), tmp_path / "out", "onnx", (), "0")
    assert [path.name for path in tmp_path.iterdir()] == ["mlp"]


def test_an_operation_that_the_converter_gets_wrong_is_found_by_comparing(tmp_path):
    def gamma(params, extra, batch):
        return jax.lax.igamma(batch["x"] ** 2, batch["x"] ** 2)

    with pytest.raises(NotExportable, match=r"export to onnx: got "):
        save(Program(gamma, {}, {}, [{"x": np.ones(4, np.float32)}]), tmp_path / "out", "onnx", (), "0")
    assert not [*tmp_path.iterdir()]


def test_without_the_converter_the_command_that_installs_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    program = Program(lambda p, e, b: b["x"], {}, {}, [{"x": np.ones(2, np.float32)}])
    with pytest.raises(ImportError, match=r"ONNX files need jax2onnx; pip install .* --no-deps jax2onnx"):
        save(program, tmp_path / "out", "onnx", (), "0")


def test_a_file_that_is_none_is_refused_in_words(tmp_path):
    from jaxmodels.export import onnx

    for bad in (b"", b"\x08\x09garbage", bytes(range(256))):
        (tmp_path / "model.onnx").write_bytes(bad)
        with pytest.raises(ValueError, match=r"got a file that ONNX Runtime cannot use .*; expected"):
            onnx.read(tmp_path / "model.onnx")


def test_the_converter_leaves_jax_as_it_was():
    functions = {name: x for name, x in vars(jnp).items() if callable(x)}
    example = {"x": np.ones(2, np.float32)}
    onnx.encode(Program(lambda params, extra, batch: batch["x"] @ params, np.eye(2), {}, [example]))
    assert {name for name, x in functions.items() if getattr(jnp, name) is not x} == set()
