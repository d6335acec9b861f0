"""Folders of weights: what fits, what does not, and how much memory reading takes."""

from __future__ import annotations

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.save import convert, save_pretrained
from jaxmodels.convert.tensors import INDEX, open_file, open_folder, write_file
from jaxmodels.models.bert import Bert, MaskedLM
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.mlp import MLP
from jaxmodels.models.moe import MoE
from jaxmodels.models.t5 import T5
from jaxmodels.parallel import rules
from jaxmodels.parallel.mesh import make_mesh

MODEL = GPT(11, 16, 8, 2, 2)
fast = pytest.mark.fast


@pytest.fixture(scope="module")
def params():
    return jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]


@pytest.fixture
def folder(tmp_path, params):
    save_pretrained(tmp_path / "a", MODEL, params)
    return tmp_path / "a"


def change(folder, **changes):
    """Writes the folder's tensors again: None leaves one out, an array replaces it."""
    path = folder / "model.safetensors"
    arrays = {name: np.array(tensor.read()) for name, tensor in open_file(path).items()} | changes
    kept = {name: x for name, x in arrays.items() if x is not None}
    write_file(path, {name: (x.shape, x.dtype, lambda x=x: x) for name, x in kept.items()})


def set_config(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_what_is_written_is_read_again(folder, params):
    model, got, _, config = load_pretrained(folder)
    assert (model, config["model_type"]) == (MODEL, "gpt2")
    same(got, params)


def test_convert_writes_the_same_model_with_its_tokenizer(folder, params, tmp_path):
    (folder / "tokenizer.json").write_text("{}")
    assert convert(folder, tmp_path / "b") == sum(x.size for x in jax.tree.leaves(params))
    same(load_pretrained(tmp_path / "b").params, params)
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "{}"


@pytest.mark.slow
@fast
def test_convert_takes_along_everything_that_says_how_inputs_are_made(folder, tmp_path):
    names = (
        "tokenizer_config.json",
        "added_tokens.json",
        "generation_config.json",
        "preprocessor_config.json",
        "merges.txt",
    )
    for name in names:
        (folder / name).write_text("{}")
    convert(folder, tmp_path / "b")
    assert all((tmp_path / "b" / name).is_file() for name in names)


def test_convert_overwrites_nothing(folder):
    with pytest.raises(ValueError, match=r"not empty, or a file; expected a new folder"):
        convert(folder, folder)


def test_older_weights_in_the_folder_do_not_stay(folder, params):
    other = jax.tree.map(lambda x: x + 1, params)
    save_pretrained(folder, MODEL, other, shard=1000)
    same(load_pretrained(folder).params, other)
    save_pretrained(folder, MODEL, params)
    same(load_pretrained(folder).params, params)


def test_shardings_of_another_model_are_refused(folder):
    with pytest.raises(ValueError, match=r"shardings: got other paths than the parameters' \("):
        load_pretrained(folder, shardings={"position": None})


def test_names_may_lack_their_prefix(folder, params):
    arrays = {
        name: np.array(tensor.read()) for name, tensor in open_file(folder / "model.safetensors").items()
    }
    bare = {name.removeprefix("transformer."): x for name, x in arrays.items()}
    write_file(
        folder / "model.safetensors", {name: (x.shape, x.dtype, lambda x=x: x) for name, x in bare.items()}
    )
    same(load_pretrained(folder).params, params)


def test_parameters_may_be_split_over_devices(folder, params):
    mesh = make_mesh("fsdp=8")
    shardings = rules.state_shardings(jax.eval_shape(lambda: params), mesh)
    got = load_pretrained(folder, shardings=shardings).params
    same(got, params)
    assert len(got["blocks"]["qkv"]["kernel"].sharding.device_set) == 8
    assert not got["blocks"]["qkv"]["kernel"].sharding.is_fully_replicated


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"transformer.wpe.weight": None},
            r"got no tensor 'transformer.wpe.weight'; expected it for position",
        ),
        ({"transformer.h.1.ln_1.bias": None}, r"got no tensor 'transformer.h.1.ln_1.bias'"),
        ({"extra": np.zeros(3, np.float32)}, r"got 1 tensors that nothing in a gpt2 uses, such as extra"),
        (
            {"transformer.h.2.ln_1.bias": np.zeros(8, np.float32)},
            r"that nothing in a gpt2 uses, such as transformer.h.2",
        ),
        (
            {"transformer.wpe.weight": np.zeros((8, 16), np.float32)},
            r"of the shape \[8, 16\].*expected \(16, 8\)",
        ),
        (
            {"transformer.h.1.ln_1.bias": np.zeros(9, np.float32)},
            r"h.1.ln_1.bias of the shape \[9\].*expected \(8,\)",
        ),
    ],
    ids=["missing", "missing-layer", "extra", "extra-layer", "turned", "another-size"],
)
def test_tensors_that_do_not_fit_are_named(folder, changes, message):
    change(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gptx"}, r"got the model_type 'gptx'; expected one of gpt2, .*llama"),
        ({"model_type": ["gpt2"]}, r"got the model_type"),
        ({"n_embd": "8"}, r"got n_embd '8'; expected a positive number"),
        ({"n_embd": -8}, r"got n_embd -8"),
        ({"n_embd": None}, r"got n_embd None"),
        ({"n_embd": {}}, r"got n_embd {}"),
        ({"n_layer": 2**31 - 1}, r"got n_layer 2147483647"),
        ({"n_layer": True}, r"got n_layer True"),
        ({"n_layer": 10**12}, r"got n_layer 1000000000000"),
        ({"n_layer": 3}, r"got no tensor"),
        ({"n_positions": 10**9}, r"of the shape"),
        ({"activation_function": "relu"}, r"got activation_function 'relu'"),
    ],
)
def test_settings_that_cannot_be_are_named_before_anything_is_made(folder, changes, message):
    set_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


TEXT = (jnp.zeros((1, 2), jnp.int32),)
TIED = {
    "gpt2": (MODEL, "lm_head.weight", "transformer.wte.weight"),
    "llama": (Llama(11, 16, 8, 1, 2, 1, 12, tied=True), "lm_head.weight", "model.embed_tokens.weight"),
    "moe": (
        MoE(11, 16, 8, 1, 2, 1, experts=2, chosen=1, expert_width=4, tied=True),
        "lm_head.weight",
        "model.embed_tokens.weight",
    ),
    "bert": (
        MaskedLM(Bert(11, 16, 8, 1, 2, 12)),
        "cls.predictions.decoder.weight",
        "bert.embeddings.word_embeddings.weight",
    ),
    "bert, bias": (
        MaskedLM(Bert(11, 16, 8, 1, 2, 12)),
        "cls.predictions.decoder.bias",
        "cls.predictions.bias",
    ),
    "roberta": (
        MaskedLM(Bert(11, 16, 8, 1, 2, 12, offset=2)),
        "lm_head.decoder.weight",
        "roberta.embeddings.word_embeddings.weight",
    ),
    "t5": (T5(11, 8, 1, 2, 4, 12), "lm_head.weight", "shared.weight"),
    "t5, encoder": (T5(11, 8, 1, 2, 4, 12), "encoder.embed_tokens.weight", "shared.weight"),
}


@pytest.mark.slow
@fast
@pytest.mark.parametrize("name", TIED)
def test_a_second_head_beside_tied_embeddings_is_equal_to_them_or_refused(name, tmp_path):
    model, copy, original = TIED[name]
    inputs = TEXT * 2 if name.startswith("t5") else TEXT
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    save_pretrained(tmp_path, model, jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes))
    values = np.array(open_file(tmp_path / "model.safetensors")[original].read())
    change(tmp_path, **{copy: values})
    load_pretrained(tmp_path)
    values[..., -1] += 1e-3
    change(tmp_path, **{copy: values})
    with pytest.raises(
        ValueError,
        match=rf"got {copy} with other values than {original}, .*ties the two; expected equal ones",
    ):
        load_pretrained(tmp_path)


@pytest.mark.slow
@fast
def test_a_head_of_its_own_is_used_where_the_config_unties_it(folder, params):
    head = np.random.default_rng(0).normal(size=(11, 8)).astype(np.float32)
    change(folder, **{"lm_head.weight": head})
    set_config(folder, tie_word_embeddings=False)
    np.testing.assert_array_equal(load_pretrained(folder).params["head"], head)


@fast
def test_a_folder_without_config_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*config.json"):
        load_pretrained(tmp_path)


@fast
def test_a_model_without_a_form_elsewhere_is_refused(tmp_path):
    with pytest.raises(ValueError, match="got a MLP, which has no form outside of jaxmodels"):
        save_pretrained(tmp_path, MLP((3,), 2), {})


@pytest.mark.slow
@fast
def test_nothing_is_unpickled(folder, monkeypatch):
    import pickle

    def refuse(*_, **__):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    load_pretrained(folder)


MEMORY = """
import resource, sys
import jax, jax.numpy as jnp
from jaxmodels.convert.load import load_pretrained
small, large = sys.argv[1:]
load_pretrained(small)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
got = load_pretrained(large)
jax.block_until_ready(got.params)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print((after - before) * 1024, sum(x.nbytes for x in jax.tree.leaves(got.params)))
"""


def test_reading_holds_one_tensor_beside_what_stays(tmp_path):
    """394 MiB in 12 layers, the largest tensor 13 MiB.

    Pages of the file that were read count too, until the kernel reclaims them; 48 MiB are for compiling.
    """
    for name, depth, width in (("small", 2, 64), ("large", 12, 832)):
        model = GPT(4096, 64, width, depth, 8)
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
        save_pretrained(
            tmp_path / name, model, jax.tree.map(lambda x: np.zeros(x.shape, np.float32), shapes), shard=2**26
        )
    largest = max(tensor.read().nbytes for tensor in open_folder(tmp_path / "large").values())
    out = subprocess.run(
        [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")],
        capture_output=True,
        text=True,
        check=True,
    )
    grew, stays = map(int, out.stdout.split())
    assert (tmp_path / "large" / INDEX).is_file()
    assert stays > 10 * largest
    assert grew < stays + 1.3 * largest + 48 * 2**20, (grew / 2**20, stays / 2**20, largest / 2**20)
