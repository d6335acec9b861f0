"""Models as StableHLO: what jax alone loads gives what the model gives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import DETECTOR, GPT_SIZES, SPAN, TINY

import jaxmodels
from jaxmodels.export import stablehlo
from jaxmodels.export.compare import largest_difference
from jaxmodels.export.inputs import Inputs
from jaxmodels.export.obstacles import NotExportable
from jaxmodels.export.program import Program
from jaxmodels.export.save import save
from jaxmodels.inference.model import Model
from jaxmodels.models.gpt import GPT
from jaxmodels.models.mlp import MLP
from jaxmodels.tasks import language, question_answering, regress, set_prediction

PLATFORMS = ("cpu", "cuda", "tpu")
PICTURES = "tests/files/tiny_pictures.py"

# Three lines, in a process that can import nothing of this library, nor flax.
ALONE = """
import sys
from pathlib import Path
import numpy as np

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("jaxmodels", "flax", "optax", "orbax", "tests", "experiments"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())

from jax import export
program = export.deserialize(bytearray(open(sys.argv[1], "rb").read()))
output = program.call({"image": np.load(sys.argv[2])})

np.save(sys.argv[3], output["output"])
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures") / "run"
    jaxmodels.train(PICTURES, folder=str(folder), console=jaxmodels.Console(quiet=True))
    return folder


def test_a_process_with_nothing_but_jax_loads_a_run_in_three_lines(run, tmp_path):
    done = jaxmodels.export(run, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["export.json", "model.stablehlo"]
    assert done.difference <= 1e-5 and done.parameters == 130
    images = np.random.default_rng(3).random((5, 8, 8, 1))
    np.save(tmp_path / "images.npy", images)
    files = [done.file, tmp_path / "images.npy", tmp_path / "outputs.npy"]
    subprocess.run([sys.executable, "-c", ALONE, *map(str, files)], check=True, cwd=tmp_path)
    model = jaxmodels.load(run)
    expected = model.predictor.predict(model.params, model.extra, {"image": images})
    np.testing.assert_allclose(np.load(tmp_path / "outputs.npy"), expected, rtol=1e-5)


def test_what_a_reader_needs_besides_the_program_is_json(run, tmp_path):
    jaxmodels.export(jaxmodels.load(run), tmp_path / "out")
    about = json.loads((tmp_path / "out" / "export.json").read_text())
    assert about["classes"] == ["dark", "light"]
    assert about["inputs"] == {"image": {"shape": ["b", 8, 8, 1], "dtype": "float32"}}
    assert about["platforms"] == [*PLATFORMS] and about["input"] == "image" and about["step"] == 20


def lora(params, extra, batch):
    tiny = next(tiny for tiny in TINY if tiny.name == "gpt-lora")
    params, extra = tiny.task.unwrap(params, extra)
    return GPT(**GPT_SIZES).apply({"params": params, **extra}, batch["inputs"])


# What is exported of a model whose outputs tiny.py does not name; by default its evaluation.
OUTPUTS = {"gpt-lora": lora}
# Those that StableHLO cannot hold, and why.
EXCEPTIONS: dict[str, str] = {}


def program_of(tiny, make=jnp.zeros) -> Program:
    """With parameters of zeros, which need no compilation."""
    shapes = jax.eval_shape(tiny.task.init, jax.random.key(0), tiny.batch)
    params, extra = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
    outputs = tiny.outputs or OUTPUTS.get(tiny.name) or tiny.task.evaluate
    return Program(outputs, params, extra, [{key: x[0] for key, x in tiny.batch.items()}])


@pytest.mark.parametrize(
    "tiny",
    [
        pytest.param(tiny, id=tiny.name, marks=[pytest.mark.thorough] if tiny.second else [])
        for tiny in TINY
        if tiny.name not in EXCEPTIONS
    ],
)
def test_every_model_goes_through_stablehlo_with_any_batch(tiny):
    program = program_of(tiny)
    exported = jax.export.deserialize(bytearray(stablehlo.encode(program, PLATFORMS)))
    assert exported.platforms == PLATFORMS
    assert all(str(x.shape[0]) == "b" for x in exported.in_avals)


# What tasks predict beside the probabilities of classify, each with the model's parameters of tiny.py.
PREDICTIONS = {
    "regress": (
        "mlp-regress",
        lambda: regress.predictor(MLP((9,), 2, nn.tanh), ("y", "z"), inputs="features", read=dict).predict,
    ),
    "question answering": ("bert-span", lambda: question_answering.predict(SPAN)),
    "queries": ("detr", lambda: set_prediction.predict(DETECTOR)),
}


@pytest.mark.parametrize("name", PREDICTIONS)
def test_what_a_task_predicts_goes_through_stablehlo_with_any_batch(name):
    of, make = PREDICTIONS[name]
    program = program_of(next(tiny for tiny in TINY if tiny.name == of))
    predict = program._replace(function=make())
    exported = jax.export.deserialize(bytearray(stablehlo.encode(predict, PLATFORMS)))
    assert all(str(x.shape[0]) == "b" for x in (*exported.in_avals, *exported.out_avals))


def linear(params, extra, batch):
    return batch["x"] @ params


def small(function=linear, params=None, examples=None) -> Program:
    params = np.arange(6, dtype=np.float32).reshape(2, 3) if params is None else params
    return Program(function, params, {}, examples or [{"x": np.ones(2, np.float32)}])


def test_an_axis_in_which_examples_differ_is_of_any_size_within_their_limits():
    lengths = [{"x": np.zeros((n, 2), np.float32), "mask": np.zeros(n, np.int32)} for n in (4, 16, 8)]
    inputs = Inputs.of(lengths)
    assert inputs.shapes == {"x": ("b", "t", 2), "mask": ("b", "t")} and inputs.limits == {"t": (4, 16)}
    assert inputs.words("mask") == "int32 [b, t], t from 4 to 16"
    batch = {"x": np.zeros((3, 5, 2), np.float32), "mask": np.zeros((3, 5), np.int32)}
    inputs.check(batch)
    for wrong in ({"x": batch["x"]}, {**batch, "mask": np.zeros((3, 6), np.int32)}):
        with pytest.raises(ValueError, match=r"got .*; expected .*\. (Give|Convert)"):
            inputs.check(wrong)
    with pytest.raises(ValueError, match=r"mask: got float32 \[3, 5\]; expected int32 \[b, t\], t from 4"):
        inputs.check({**batch, "mask": np.zeros((3, 5), np.float32)})


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (
            lambda p, e, b: jax.pure_callback(np.sin, b["x"], b["x"]),
            "pure_callback, at .*export/test_stableh",
        ),
        (lambda p, e, b: b["x"].reshape(len(b["x"]), 2), r"len\(b\[.*_stablehlo.py:\d+"),
    ],
)
def test_a_model_that_cannot_be_exported_is_refused_with_the_operation(function, operation, tmp_path):
    with pytest.raises(NotExportable, match=f"got .*{operation}"):
        save(small(function), tmp_path / "out", "stablehlo", PLATFORMS, "0")
    assert not [*tmp_path.iterdir()]


def test_a_file_that_differs_from_the_model_is_not_kept(tmp_path, monkeypatch):
    read = stablehlo.read
    monkeypatch.setattr(
        stablehlo,
        "read",
        lambda path: lambda batch: {k: x * (1 + 1e-4) for k, x in read(path)(batch).items()},
    )
    with pytest.raises(NotExportable, match=r"differs from the model's by 1\.0e-04"):
        save(small(), tmp_path / "out", "stablehlo", ("cpu",), "0")
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("platforms", [("cuda",), ("cpu", "abacus"), ()])
def test_platforms_are_known_and_one_of_them_is_here(platforms, tmp_path):
    with pytest.raises(ValueError, match=r"--platforms: got .*; expected .*"):
        save(small(), tmp_path / "out", "stablehlo", platforms, "0")


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="got a folder or a file that exists; expected a new folder"):
        save(small(), tmp_path / "out", "stablehlo", ("cpu",), "0")


def test_parameters_beyond_the_format_are_refused_with_advice(monkeypatch):
    monkeypatch.setattr(stablehlo, "LARGEST", 8)
    with pytest.raises(NotExportable, match=r"got 24 bytes of parameters.*--format safetensors"):
        stablehlo.encode(small(), ("cpu",))


def test_nan_where_the_model_has_numbers_is_a_difference():
    def wrong(batch):
        return {"output": np.full((len(batch["x"]), 3), np.nan, np.float32)}

    with pytest.raises(NotExportable, match="differs from the model's by inf"):
        largest_difference(small(), wrong, "stablehlo")


def test_a_file_that_is_none_is_refused_in_words(tmp_path):
    content, path = stablehlo.encode(small(), ("cpu",)), tmp_path / "model.stablehlo"
    random = np.random.default_rng(0)
    cut = [content[: len(content) * n // 8] for n in range(8)]
    noise = [random.bytes(200), b"PK\x03\x04" + random.bytes(99), content + b"more"]
    refused = 0
    for bad in [*cut, *noise]:
        path.write_bytes(bad)
        try:
            stablehlo.read(path)({"x": np.ones((1, 2), np.float32)})
        except ValueError as error:
            assert "got a file that jax cannot use" in str(error) and "Export it again" in str(error)
            refused += 1
    assert refused >= len(cut) + 2


def test_a_language_model_gives_logits_of_texts_of_any_length_up_to_its_own(tmp_path):
    model = GPT(**GPT_SIZES)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    made = language.decoder(model, encode=list, decode=str)
    done = jaxmodels.export(Model(Path("gpt"), params, {}, decoder=made), tmp_path / "out")
    program = jax.export.deserialize(bytearray(done.file.read_bytes()))
    tokens = np.arange(8, dtype=np.int32).reshape(2, 4)
    expected = model.apply({"params": params}, tokens)
    np.testing.assert_allclose(program.call({"tokens": tokens})["logits"], expected, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="refining shapes"):  # jax prints which limit, 6, is exceeded
        program.call({"tokens": np.zeros((1, 7), np.int32)})
