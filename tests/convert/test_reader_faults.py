"""Damaged files of other libraries: a reader gives a value or one clear error, soon and in little memory."""

from __future__ import annotations

import copy
import io
import json
import resource
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzz import mutations

from jaxmodels.convert.families import FAMILIES
from jaxmodels.convert.image import from_timm, from_transformers
from jaxmodels.convert.llama2c import load_llama2c, load_vocabulary, save_llama2c
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.model_config import module_of
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.tensors import INDEX, open_file, open_folder, write_file
from jaxmodels.convert.text import special_tokens, token_ids
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.models.bert import Bert, MaskedLM, TextClassifier
from jaxmodels.models.convnext import ConvNeXt
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.moe import MoE
from jaxmodels.models.resnet import Basic, ResNet
from jaxmodels.models.t5 import T5
from jaxmodels.models.vit import ViT

pytestmark = pytest.mark.fast
SECONDS, BYTES = 5, 1 << 30


@pytest.fixture(autouse=True)
def little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < BYTES


def survey(read, cases):
    """Numbers of cases that were read and refused; any other error, and a slow one, fails with its case."""
    counts = [0, 0]
    for case in cases:
        began = time.monotonic()
        try:
            read(case)
            counts[0] += 1
        except (ValueError, OSError) as error:
            if isinstance(error, UnicodeError) or not 10 < len(str(error)) < 2000:
                raise
            counts[1] += 1
        except BaseException as error:
            error.add_note(f"case {str(case)[:300]}")
            raise
        assert time.monotonic() - began < SECONDS, str(case)[:300]
    return counts


ODD = (
    None,
    True,
    False,
    -1,
    0,
    1,
    1.5,
    float("nan"),
    float("inf"),
    2**31 - 1,
    2**40,
    10**30,
    -(2**63),
    "",
    "x",
    "1",
    "a" * 999,
)
NESTED = ([], [[]], {}, {"a": [1]}, [3] * 30, [None], [-1], ["x"], [2**40, 2**40], {"0": None}, [[[[[[1]]]]]])


def changed(value, count, seed=0):
    """The value with one to three of its parts, in any depth, made odd, taken away or doubled."""
    for case in range(count):
        rng = np.random.default_rng([seed, case])
        made = copy.deepcopy(value)
        for _ in range(int(rng.integers(1, 4))):
            node = made
            while True:
                keys = list(node) if isinstance(node, dict) else list(range(len(node)))
                if not keys:
                    break
                key = keys[int(rng.integers(len(keys)))]
                if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.6:
                    node = node[key]
                    continue
                every = (*ODD, *NESTED)
                if rng.random() < 0.1:
                    del node[key]
                else:
                    node[key] = copy.deepcopy(every[int(rng.integers(len(every)))])
                break
        yield made


TEXT = (jnp.zeros((1, 2), jnp.int32),)
MODELS = {
    "gpt2": GPT(11, 16, 8, 1, 2),
    "llama": Llama(11, 16, 8, 1, 2, 1, 12),
    "mistral": Llama(11, 16, 8, 1, 2, 1, 12, window=4),
    "qwen2": Llama(11, 16, 8, 1, 2, 1, 12, biases=("query", "key", "value")),
    "moe": MoE(11, 16, 8, 1, 2, 1, experts=2, chosen=1, expert_width=4),
    "bert": MaskedLM(Bert(11, 16, 8, 1, 2, 12)),
    "roberta": TextClassifier(Bert(11, 16, 8, 1, 2, 12, offset=2), 3),
    "t5": T5(11, 8, 1, 2, 4, 12),
    "resnet": ResNet(3, (1, 1), Basic, (4, 8), stem_width=4),
    "convnext": ConvNeXt(3, (1, 1), (4, 8)),
    "vit": ViT(3, 8, 1, 2, 8, size=16),
}
MORE = {  # what else such files say
    "architectures": None,
    "eos_token_id": [1, 2],
    "rope_scaling": {
        "rope_type": "yarn",
        "factor": 2.0,
        "original_max_position_embeddings": 8,
        "beta_fast": 32,
    },
    "layer_types": ["full_attention"],
    "num_labels": 3,
    "dtype": "float32",
}


@pytest.mark.parametrize("name", MODELS)
def test_a_config_of_any_kind_of_values(tmp_path, name):
    model = MODELS[name]
    family = next(
        family for family in FAMILIES if isinstance(model, family.modules) and family.layout == "transformers"
    )
    said = family.config(model)
    more = {
        key: value
        for key, value in MORE.items()
        if key not in said and (key != "rope_scaling" or "rope_theta" in said)
    }
    said = {**said, **more, **({"rope_scaling": MORE["rope_scaling"]} if "rope_theta" in said else {})}
    tensors = dict.fromkeys(range(40))

    def read(config):
        if config.get("model_type") in family.kinds if isinstance(config.get("model_type"), str) else False:
            return family.weights(module_of(tmp_path, family, config, tensors))
        raise ValueError("another family's")

    counts = survey(read, changed({key: value for key, value in said.items() if value is not None}, 300))
    assert min(counts) > 10


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "resnet"])
def test_a_folder_whose_config_is_damaged(tmp_path, name):
    model = MODELS[name]
    inputs = TEXT if name == "llama" else (jnp.zeros((1, 32, 32, 3)),)
    variables = dict(jax.eval_shape(model.init, jax.random.key(0), *inputs))
    variables = jax.tree.map(lambda x: np.zeros(x.shape, np.float32), variables)
    save_pretrained(tmp_path, model, variables.pop("params"), variables, layout="transformers")
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())

    def read(config):
        path.write_bytes(config if isinstance(config, bytes) else json.dumps(config).encode())
        return load_pretrained(tmp_path)

    survey(
        read,
        [{**whole, "num_hidden_layers": 3 * 10**8}, {**whole, "depths": [3000, 3000]}, *changed(whole, 8)],
    )
    survey(read, mutations(json.dumps(whole).encode(), 12))


def sums(path):
    return [np.array(tensor.read()).sum() for tensor in open_file(path).values()]


@pytest.mark.slow
def test_damaged_safetensors_and_their_index(tmp_path):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    path, index = tmp_path / "model-1.safetensors", tmp_path / INDEX
    write_file(path, {name: (x.shape, x.dtype, lambda: x) for name in ("a", "b", "c.weight")})
    whole = path.read_bytes()

    def read(data):
        return (path.write_bytes(data), sums(path))

    assert survey(read, mutations(whole, 300))[1] > 200
    path.write_bytes(whole)
    said = {"metadata": {"total_size": 72}, "weight_map": dict.fromkeys(("a", "b", "c.weight"), path.name)}

    def read(value):
        return (index.write_text(json.dumps(value)), open_folder(tmp_path))

    assert min(survey(read, [said, *changed(said, 150)])) > 0

    def read(data):
        return (index.write_bytes(data), open_folder(tmp_path))

    survey(read, mutations(json.dumps(said).encode(), 150))


def test_a_header_larger_than_any_real_one_is_not_read(tmp_path):
    path = tmp_path / "a.safetensors"
    with path.open("wb") as file:
        file.write((17 << 20).to_bytes(8, "little"))
        file.truncate(18 << 20)
    with pytest.raises(ValueError, match="got a header of 17,825,792 bytes, more than 16,777,216"):
        open_file(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_of_torch(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    from jaxmodels.convert.torch_file import open_torch

    path = tmp_path / "a.pt"
    values = {"a.weight": torch.ones(2, 3), "b": torch.ones(4)}
    torch.save(values, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()

    def read(data):
        return (path.write_bytes(data), [x.read().sum() for x in open_torch(path).values()])

    assert min(survey(read, [whole, *mutations(whole, 120)])) > 0


@pytest.mark.slow
def test_damaged_models_and_vocabularies_of_llama2c(tmp_path):
    model = Llama(11, 16, 8, 1, 2, 1, 12, tied=True)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *TEXT)["params"]
    path = tmp_path / "a.bin"
    save_llama2c(path, model, jax.tree.map(lambda x: np.ones(x.shape, np.float32), shapes))
    whole = path.read_bytes()

    def read(data):
        return (path.write_bytes(data), jax.tree.map(np.sum, load_llama2c(path)[1]))

    assert min(survey(read, [whole, *mutations(whole, 300)])) > 0
    pieces = [b"<unk>", b"<s>", b"</s>", *(b"<0x%02X>" % byte for byte in range(256)), b" ", b"a", b" a"]
    whole = (8).to_bytes(4, "little")
    for i, piece in enumerate(pieces):
        whole += np.float32(i).tobytes() + len(piece).to_bytes(4, "little") + piece

    def spoken(data):
        path.write_bytes(data)
        made = load_vocabulary(path, len(pieces))
        return made.decode([*made.encode("a b é"), len(pieces), 2**40])

    assert min(survey(spoken, [whole, *mutations(whole, 300)])) > 0


# Tokenizers


def speaks(path):
    made = Tokenizer.load(path)
    return made.decode(made.encode("a cat, it's [MASK] é <s>"))


@pytest.fixture(scope="module")
def tokenizer_files():
    pytest.importorskip("tokenizers")
    pytest.importorskip("sentencepiece")
    import sentencepiece

    texts, made = ["the cat sat on the mat, a hat"] * 9, io.BytesIO()
    options = {"vocab_size": 40, "hard_vocab_limit": False, "minloglevel": 2}
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=made, **options)
    words = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghit,'", "##at", "the"])
    return {
        **{
            kind: Tokenizer.train(texts, vocabulary=262, kind=kind)
            for kind in ("bpe", "wordpiece", "unigram")
        },
        "model": made.getvalue(),
        "words": words.encode(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_damaged_tokenizer_json(tmp_path, kind, tokenizer_files):
    path = tmp_path / "tokenizer.json"
    tokenizer_files[kind].save(path)
    whole = json.loads(path.read_text())

    def read(value):
        return (path.write_text(json.dumps(value)), speaks(path))

    assert min(survey(read, changed(whole, 200))) > 0
    whole = path.read_bytes() if kind != "bpe" else json.dumps(whole).encode()

    def read(data):
        return (path.write_bytes(data), speaks(path))

    survey(read, mutations(whole, 100))


PANICS = {  # of Rust, which are no Exception
    "when it is read": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "EAAAAGFiY2RlZmdo"}},
    "when it is used": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "BAAAAP////96eg=="}},
    "when it cuts": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "in its template": {
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [],
            "special_tokens": {},
        }
    },
}


@pytest.mark.parametrize("name", PANICS)
def test_a_panic_of_the_librarys_is_a_clear_error(tmp_path, name, tokenizer_files):
    path = tmp_path / "tokenizer.json"
    tokenizer_files["unigram"].save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **PANICS[name]}))
    with pytest.raises(
        ValueError,
        match=r"is no tokenizer that can be read|the tokenizer failed: got .*; expected a sound one",
    ):
        Tokenizer.load(path).encode_many(["a cat ☃"])


@pytest.mark.slow
def test_damaged_lists_of_pieces(tmp_path, tokenizer_files):
    path = tmp_path / "vocab.txt"

    def read(data):
        return (path.write_bytes(data), speaks(path))

    assert min(survey(read, mutations(tokenizer_files["words"], 200))) > 0
    path.unlink()
    tokenizer_files["bpe"].save(tmp_path / "whole")
    model = json.loads((tmp_path / "whole").read_text())["model"]
    pieces, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    whole = ("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"])).encode()
    merges.write_bytes(whole)

    def read(data):
        return (pieces.write_bytes(data), speaks(pieces))

    survey(read, mutations(json.dumps(model["vocab"]).encode(), 150))
    survey(lambda value: read(json.dumps(value).encode()), changed(model["vocab"], 100))
    pieces.write_text(json.dumps(model["vocab"]))
    survey(lambda data: (merges.write_bytes(data), speaks(pieces)), mutations(whole, 150))


@pytest.mark.slow
def test_damaged_sentencepiece_models(tmp_path, tokenizer_files):
    path = tmp_path / "tokenizer.model"
    assert (
        min(
            survey(
                lambda data: (path.write_bytes(data), speaks(path)), mutations(tokenizer_files["model"], 200)
            )
        )
        > 0
    )


SETTINGS = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": {"content": "a", "lstrip": False},
    "eos_token": "t",
    "add_bos_token": True,
    "add_prefix_space": False,
    "do_lower_case": False,
    "additional_special_tokens": ["a", {"content": "t"}],
    "added_tokens_decoder": {"262": {"content": "<x>", "special": True}, "263": {"content": "<y>"}},
    "model_max_length": 10**30,
}


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("tokenizer_config.json", SETTINGS),
        ("special_tokens_map.json", {"bos_token": "a", "mask_token": {"content": "h", "lstrip": True}}),
        ("added_tokens.json", {"<x>": 262, "<y>": 263}),
        ("config.json", {"model_type": "gpt2", "tokenizer_class": "GPT2Tokenizer"}),
    ],
)
def test_damaged_settings_beside_a_tokenizer(tmp_path, name, whole, tokenizer_files):
    tokenizer_files["bpe"].save(tmp_path / "tokenizer.json")
    path = tmp_path / name
    survey(lambda value: (path.write_text(json.dumps(value)), speaks(tmp_path)), changed(whole, 150))
    survey(lambda data: (path.write_bytes(data), speaks(tmp_path)), mutations(json.dumps(whole).encode(), 60))


@pytest.mark.slow
def test_damaged_settings_of_generation(tmp_path):
    whole = {
        "eos_token_id": [1, 2],
        "bos_token_id": 0,
        "suppress_tokens": [],
        "min_length": 0,
        "temperature": 0.5,
    }
    path = tmp_path / "generation_config.json"

    def read(value):
        path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
        return token_ids(special_tokens(tmp_path, {}), "eos_token_id", tmp_path)

    assert min(survey(read, changed(whole, 300))) > 0
    survey(read, mutations(json.dumps(whole).encode(), 200))


def test_damaged_settings_of_images():
    plain = {
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 2,
        "rescale_factor": 1 / 255,
        "do_resize": True,
    }
    plain |= {
        "size": {"shortest_edge": 9},
        "crop_size": {"height": 9, "width": 9},
        "do_center_crop": True,
        "crop_pct": 0.8,
    }
    plain |= {"image_processor_type": "ViTImageProcessor", "do_pad": False}
    timm = {
        "input_size": [3, 9, 9],
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "crop_pct": 0.8,
        "interpolation": "bicubic",
    }
    assert min(survey(from_transformers, changed(plain, 400))) > 0
    assert min(survey(from_timm, changed({**timm, "crop_mode": "center"}, 400))) > 0
