"""CTranslate2's model.bin: what a sound file gives, and that nothing of an unsound one is used."""

from __future__ import annotations

import json
import re
import struct

import jax
import numpy as np
import pytest

from jaxmodels.convert import ctranslate2
from jaxmodels.convert.ctranslate2 import open_ctranslate2
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.whisper import FAMILY
from jaxmodels.convert.whisper_ctranslate2 import generation_config
from jaxmodels.models.whisper import Whisper, sinusoids
from jaxmodels.paths import by_path

pytestmark = pytest.mark.fast
MODEL = Whisper(37, 8, 2, 2, 12, decoder_depth=1, bands=5, frames=12, length=9)
TYPES = {np.dtype(np.float32): 0, np.dtype(np.int8): 1, np.dtype(np.int16): 2, np.dtype(np.float16): 4}


def text(word):
    return struct.pack("<H", len(word) + 1) + word.encode() + b"\0"


def packed(variables, aliases=(), *, specification="WhisperSpec", version=6):
    """The bytes of a file."""
    parts = [struct.pack("<I", version), text(specification), struct.pack("<II", 3, len(variables))]
    for name, x in variables.items():
        head = struct.pack(f"<B{x.ndim}I", x.ndim, *x.shape) + struct.pack("<BI", TYPES[x.dtype], x.nbytes)
        parts += [text(name), head, x.tobytes()]
    parts += [struct.pack("<I", len(aliases)), *(text(a) + text(b) for a, b in aliases)]
    return b"".join(parts)


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), *FAMILY.inputs(MODEL))["params"]
    random = np.random.default_rng(0)
    return jax.tree.map(lambda x: random.normal(size=x.shape).astype(np.float16).astype(np.float32), shapes)


def whisper(params):
    """The variables of the model as CTranslate2's converter joins and names them."""
    p = {name: np.asarray(x, np.float16) for name, x in by_path(params).items()}
    found = {}

    def norm(theirs, ours, index=()):
        found[f"{theirs}/gamma"], found[f"{theirs}/beta"] = (
            p[f"{ours}/scale"][index],
            p[f"{ours}/bias"][index],
        )

    def linear(theirs, ours, index, names):
        kernels = [p[f"{ours}{name}/kernel"][index].T for name in names]
        biases = [
            p.get(f"{ours}{name}/bias", np.zeros((9, len(k)), np.float16))[index]
            for name, k in zip(names, kernels, strict=True)
        ]
        found[f"{theirs}/weight"], found[f"{theirs}/bias"] = np.concatenate(kernels), np.concatenate(biases)

    for side, depth in (("encoder", MODEL.depth), ("decoder", MODEL.decoder_depth)):
        found[f"{side}/num_heads"] = np.int16(MODEL.heads)
        norm(f"{side}/layer_norm", f"norm_{side}")
        for i in range(depth):
            layer = f"{side}/layer_{i}/"
            norm(f"{layer}self_attention/layer_norm", f"{side}/norm_attention", i)
            norm(f"{layer}ffn/layer_norm", f"{side}/norm_mlp", i)
            linear(f"{layer}self_attention/linear_0", f"{side}/", i, ("query", "key", "value"))
            linear(f"{layer}self_attention/linear_1", f"{side}/", i, ("out",))
            linear(f"{layer}ffn/linear_0", f"{side}/", i, ("up",))
            linear(f"{layer}ffn/linear_1", f"{side}/", i, ("down",))
            if side == "decoder":
                norm(f"{layer}attention/layer_norm", "decoder/norm_source", i)
                linear(f"{layer}attention/linear_0", "decoder/source_", i, ("query",))
                linear(f"{layer}attention/linear_1", "decoder/source_", i, ("key", "value"))
                linear(f"{layer}attention/linear_2", "decoder/source_", i, ("out",))
    for n in (1, 2):
        found[f"encoder/conv{n}/weight"] = p[f"conv_{n}/kernel"].transpose(2, 1, 0)
        found[f"encoder/conv{n}/bias"] = p[f"conv_{n}/bias"]
    found["encoder/position_encodings/encodings"] = sinusoids(6, 8).astype(np.float16)
    found["decoder/position_encodings/encodings"] = p["positions/embedding"]
    found["decoder/embeddings/weight"] = p["embed/embedding"]
    found["decoder/activation"], found["decoder/pre_norm"] = np.int8(3), np.int8(1)
    found["decoder/alignment_heads"] = np.int16(1)
    return found


ALIAS = [("decoder/projection/weight", "decoder/embeddings/weight")]


def written(folder, content):
    (folder / "model.bin").write_bytes(content)
    (folder / "config.json").write_text(json.dumps({"suppress_ids": [1, 2], "suppress_ids_begin": [3]}))
    return folder


def test_a_file_gives_the_model_and_every_parameter(params, tmp_path):
    model, got, extra, config = load_pretrained(written(tmp_path, packed(whisper(params), ALIAS)))
    assert model == MODEL and extra == {}
    assert (config["suppress_tokens"], config["begin_suppress_tokens"]) == ([1, 2], [3])
    jax.tree.map(np.testing.assert_array_equal, got, params)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder/activation": np.int8(0)}, "got decoder/activation 0; expected 3"),
        ({"decoder/layer_0/ffn/linear_0/weight": np.zeros((12, 8), np.int8)}, "as int8; expected float16"),
        ({"decoder/layer_0/attention/linear_1/weight": np.zeros((15, 8), np.float16)}, "in 2 equal parts"),
        ({"decoder/more/weight": np.zeros(3, np.float16)}, "got 1 tensors that nothing in a whisper uses"),
        ({"encoder/conv1/weight": np.zeros((8, 5), np.float16)}, r"of the shape \[8, 5\]; expected 3 axes"),
        (
            {"encoder/layer_norm/beta": np.full(8, np.nan, np.float16)},
            "got 8 NaN or infinite of the 8 values",
        ),
        ({"encoder/position_encodings/encodings": np.zeros((6, 8), np.float16)}, "with other values"),
        ({"encoder/num_heads": np.int16(4)}, "got decoder_attention_heads 2; expected 4"),
    ],
    ids=["activation", "int8", "odd rows", "unknown", "axes", "nan", "positions", "heads"],
)
def test_a_sound_file_of_another_model_is_refused(params, tmp_path, change, message):
    folder = written(tmp_path, packed({**whisper(params), **change}, ALIAS))
    with pytest.raises(ValueError, match=message):
        load_pretrained(folder)


def test_a_head_that_is_not_the_embeddings_is_refused(params, tmp_path):
    variables = whisper(params)
    other = {**variables, "decoder/projection/weight": variables["decoder/embeddings/weight"] + 1}
    with pytest.raises(ValueError, match=r"with other values than model.decoder.embed_tokens"):
        load_pretrained(written(tmp_path, packed(other)))


SMALL = {"a/weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a/n": np.int8(2)}
SOUND = packed(SMALL, [("b", "a/weight")])


def test_variables_and_aliases_are_read(tmp_path):
    (tmp_path / "x").write_bytes(SOUND)
    specification, tensors = open_ctranslate2(tmp_path / "x")
    assert specification == "WhisperSpec" and [*tensors] == ["a/weight", "a/n", "b"]
    for name in ("a/weight", "b"):
        np.testing.assert_array_equal(tensors[name].read(), SMALL["a/weight"])


def test_every_truncated_file_is_refused(tmp_path):
    for length in range(len(SOUND)):
        (tmp_path / "x").write_bytes(SOUND[:length])
        with pytest.raises(ValueError, match=r"got .*; expected .*"):
            open_ctranslate2(tmp_path / "x")


def test_a_changed_byte_is_refused_or_changes_only_names_and_values(tmp_path):
    random, refused = np.random.default_rng(0), 0
    for position in range(len(SOUND)):
        content = bytearray(SOUND)
        content[position] ^= int(random.integers(1, 256))
        (tmp_path / "x").write_bytes(content)
        try:
            _, tensors = open_ctranslate2(tmp_path / "x")
        except ValueError as error:
            assert re.search("got .*; expected .*", str(error))
            refused += 1
        else:
            assert all(
                x.offset + x.dtype.itemsize * max(1, int(np.prod(x.shape))) <= len(SOUND)
                for x in tensors.values()
            )
    assert refused > 60


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(SMALL, version=3), "got the version 3; expected one of 4, 5, 6. Convert"),
        (packed(SMALL) + b"x", "got 1 bytes after the end"),
        (packed(SMALL, [("a/n", "a/weight")]), "got the alias 'a/n'"),
        (packed(SMALL, [("c", "d")]), "got the alias 'c' of 'd'"),
        (packed({"a" * 1000: np.int8(0)}), "got a name of 1,001 bytes"),
        (packed({"\0": np.int8(0)}), "got the name"),
        (packed(SMALL)[:-4] + b"\xff" * 4, "got 4,294,967,295 aliases; expected at most 200,000"),
        (packed({"a": np.zeros((1,) * 9, np.int8)}), "got 'a' with 9 axes"),
    ],
    ids=["version", "rest", "alias", "target", "long", "zero", "count", "axes"],
)
def test_a_file_that_lies_is_refused(tmp_path, content, message):
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        open_ctranslate2(tmp_path / "x")


def test_a_variable_twice_and_another_specification_are_refused(tmp_path):
    twice = packed({"a": np.int8(1), "b": np.int8(1)}).replace(text("b"), text("a"))
    (tmp_path / "x").write_bytes(twice)
    with pytest.raises(ValueError, match="got the variable 'a' twice"):
        open_ctranslate2(tmp_path / "x")
    with pytest.raises(ValueError, match="got a TransformerSpec; expected a WhisperSpec"):
        load_pretrained(written(tmp_path, packed(SMALL, specification="TransformerSpec")))


def test_a_folder_is_known_by_the_start_of_its_file(tmp_path):
    assert not ctranslate2.is_ctranslate2(tmp_path)
    assert ctranslate2.is_ctranslate2(written(tmp_path, SOUND))
    assert not ctranslate2.is_ctranslate2(written(tmp_path, b"PK\3\4 zip of torch"))


def test_the_settings_of_generation_are_those_of_the_tokenizer():
    pieces = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    pieces += ["<|startofprev|>", "<|notimestamps|>"]
    config = {
        "suppress_tokens": [1],
        "begin_suppress_tokens": [2],
        "max_target_positions": 9,
        "vocab_size": 8,
    }
    got = generation_config(
        config, {x: i for i, x in enumerate(pieces)}.get, lambda tokens: pieces[tokens[0]]
    )
    assert got["lang_to_id"] == {"<|en|>": 2, "<|de|>": 3}
    assert got["task_to_id"] == {"transcribe": 5, "translate": 4}
    assert (got["eos_token_id"], got["no_timestamps_token_id"], got["is_multilingual"]) == (0, 7, True)
