"""A folder of weights with a tokenizer as a model that writes and scores, from the command line too."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.text import open_text_model
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.decoding import generate
from jaxmodels.models.bert import Bert
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.t5 import T5

pytest.importorskip("tokenizers")

TEXT = "the cat sat on the mat with a hat. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("release")
    tokenizer = Tokenizer.train([TEXT] * 9, vocabulary=280)
    model = GPT(tokenizer.vocabulary, 64, 16, 2, 2)
    params = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))["params"]
    save_pretrained(folder, model, jax.tree.map(lambda x: 10 * x, params), config={"eos_token_id": 0})
    tokenizer.save(folder / "tokenizer.json")
    return folder


def main(capsys, *arguments):
    status = cli.main([str(a) for a in arguments])
    return status, capsys.readouterr().out


def test_it_writes_what_its_model_finds_likeliest(folder):
    made = open_text_model(folder)
    [wrote] = generate(made.decoder, made.params, {}, ["the cat"], tokens=5, temperature=0)
    prompt = made.decoder.encode("the cat")
    logits_1TV = jax.jit(made.model.apply)({"params": made.params}, np.array([[*prompt, *wrote.tokens]]))
    likeliest = logits_1TV[0].argmax(-1)  # no logit depends on a later token
    assert wrote.tokens and [*wrote.tokens] == likeliest[len(prompt) - 1 : -1].tolist()
    assert made.decoder.end == 0


def test_the_command_writes_after_several_prompts(capsys, folder):
    status, out = main(capsys, "generate", folder, "--prompt", "the cat", "a hat", "--tokens", 5, "--json")
    texts = json.loads(out)["texts"]
    assert status == 0
    assert [text["prompt"] for text in texts] == ["the cat", "a hat"]
    assert all(len(text["tokens"]) <= 5 for text in texts)


def test_the_command_scores_texts(capsys, folder, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT * 9)
    status, out = main(capsys, "evaluate", folder, "--texts", tmp_path / "a.txt", "--json")
    metrics = json.loads(out.splitlines()[-1])["metrics"]
    made = open_text_model(folder)
    tokens = np.array([made.decoder.encode(TEXT * 9)])
    assert status == 0
    assert 0 < metrics["a.txt/loss"] < 100
    short = tokens[:, :30]
    logs = jax.nn.log_softmax(made.model.apply({"params": made.params}, short[:, :-1]))
    want = -np.take_along_axis(np.asarray(logs), short[:, 1:, None], -1).mean()
    (tmp_path / "b.txt").write_text(made.decoder.decode(short[0]))
    status, out = main(capsys, "evaluate", folder, "--texts", tmp_path / "b.txt", "--json")
    assert json.loads(out.splitlines()[-1])["metrics"]["b.txt/loss"] == pytest.approx(want, rel=1e-3)


def test_a_folder_is_not_evaluated_without_texts(capsys, folder):
    assert cli.main(["evaluate", str(folder)]) == 2
    assert (
        "got a folder of weights, which has no data; expected texts to score. Give --texts"
        in capsys.readouterr().err
    )


def test_the_command_converts(capsys, folder, tmp_path):
    status, out = main(capsys, "convert", folder, tmp_path / "b", "--json")
    assert status == 0
    assert json.loads(out.splitlines()[-1])["parameters"] > 1000
    assert open_text_model(tmp_path / "b").decoder.end == 0


def test_the_command_tokenizes(capsys, tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(9):
        (tmp_path / "texts" / f"{i}.txt").write_text(TEXT)
    status, out = main(
        capsys, "tokenize", tmp_path / "texts", tmp_path / "out", "--vocabulary", 270, "--json"
    )
    assert status == 0
    assert json.loads(out.splitlines()[-1])["train_tokens"] > 0


@pytest.mark.parametrize("value", ["x", -1, 1.5, True])
def test_a_special_token_that_is_no_number_is_refused(folder, tmp_path, value):
    from jaxmodels.convert.text import token_ids

    with pytest.raises(ValueError, match=r"got eos_token_id .*; expected a token"):
        token_ids({"eos_token_id": value}, "eos_token_id", tmp_path)


@pytest.fixture(scope="module")
def encoder_decoder(folder, tmp_path_factory):
    """A T5 of random weights with the same tokenizer."""
    out = tmp_path_factory.mktemp("t5")
    tokenizer = Tokenizer.load(folder)
    model = T5(tokenizer.vocabulary, 16, 2, 2, 8, 24)
    params = jax.jit(model.init)(jax.random.key(1), *[jnp.zeros((1, 4), jnp.int32)] * 2)["params"]
    save_pretrained(out, model, jax.tree.map(lambda x: 3 * x, params), config={"eos_token_id": 5})
    tokenizer.save(out / "tokenizer.json")
    return out


def test_one_with_an_encoder_writes_what_it_makes_of_a_source(capsys, encoder_decoder):
    made = open_text_model(encoder_decoder)
    status, out = main(
        capsys,
        "generate",
        encoder_decoder,
        "--prompt",
        "the cat",
        "--tokens",
        4,
        "--temperature",
        0,
        "--json",
    )
    assert status == 0
    [wrote] = json.loads(out)["texts"]
    source = np.array([[*Tokenizer.load(encoder_decoder).encode("the cat"), 5]])
    target = np.array([[0, *wrote["tokens"][:-1]]])
    logits_1TV = jax.jit(made.model.apply)({"params": made.params}, source, target)
    assert wrote["tokens"] == logits_1TV[0].argmax(-1).tolist()


def test_one_with_an_encoder_scores_no_text(capsys, encoder_decoder, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    assert cli.main(["evaluate", str(encoder_decoder), "--texts", str(tmp_path / "a.txt")]) == 2
    assert "got a text for a model that maps one text to another" in capsys.readouterr().err


def test_an_encoder_alone_writes_nothing(capsys, folder, tmp_path):
    encoder = Bert(11, 8, 8, 1, 2, 12)
    params = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    save_pretrained(tmp_path / "bert", encoder, params)
    assert cli.main(["generate", str(tmp_path / "bert"), "--prompt", "a"]) == 2
    assert "got a bert, which does not generate text; expected a model that does" in capsys.readouterr().err


def test_a_file_of_llama2c_tells_its_published_story(capsys, real):
    stories = real("weights/stories260K")
    arguments = ("--prompt", "Once upon a time", "--tokens", 60, "--temperature", 0, "--json")
    status, out = main(capsys, "generate", stories / "stories260K.bin", *arguments)
    [wrote] = json.loads(out)["texts"]
    assert status == 0
    assert (stories / "expected_greedy.txt").read_text().startswith("Once upon a time" + wrote["text"])


def test_a_file_of_llama2c_without_its_tokenizer_says_what_is_missing(capsys, real, tmp_path):
    shutil.copyfile(real("weights/stories260K") / "stories260K.bin", tmp_path / "a.bin")
    assert cli.main(["generate", str(tmp_path / "a.bin"), "--prompt", "a"]) == 2
    assert (
        "got neither tok512.bin nor tokenizer.bin beside it; expected its tokenizer"
        in capsys.readouterr().err
    )


# What the files beside the weights say


def retold(folder, out, **files):
    """A copy of a folder with other files of settings, names with _ for the dot."""
    shutil.copytree(folder, out)
    for name, value in files.items():
        path = out / (name.removesuffix("_json") + ".json")
        old = json.loads(path.read_text()) if path.is_file() else {}
        path.write_text(json.dumps({**old, **value}))
    return out


@pytest.mark.parametrize(
    ("files", "end"),
    [
        ({"config_json": {"eos_token_id": [1, 2, 3]}}, (1, 2, 3)),
        ({"generation_config_json": {"eos_token_id": [4, 5]}}, (4, 5)),
        ({"generation_config_json": {"eos_token_id": None}}, 0),
        ({"config_json": {"eos_token_id": None}}, None),
        ({"config_json": {"eos_token_id": [7]}, "generation_config_json": {}}, 7),
    ],
    ids=str,
)
def test_any_of_the_end_tokens_ends_a_text(folder, tmp_path, files, end):
    made = open_text_model(retold(folder, tmp_path / "a", **files))
    assert made.decoder.end == end


def test_a_text_ends_where_transformers_ends_it(folder, tmp_path):
    """The third most probable token is named as one of the ends, in each of the two files."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    made = open_text_model(folder)
    [whole] = generate(made.decoder, made.params, {}, ["the cat"], tokens=9, temperature=0)
    end = next(token for token in whole.tokens[2:] if token not in whole.tokens[:2])
    want = whole.tokens[: whole.tokens.index(end)]
    for name in ("config_json", "generation_config_json"):
        out = retold(folder, tmp_path / name, **{name: {"eos_token_id": [1, end]}})
        made = open_text_model(out)
        [wrote] = generate(made.decoder, made.params, {}, ["the cat"], tokens=9, temperature=0)
        assert wrote.tokens == want
        theirs = transformers.GPT2LMHeadModel.from_pretrained(out)
        prompt = torch.tensor([made.decoder.encode("the cat")])
        said = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=9, do_sample=False
        )
        assert said[0, prompt.shape[1] :].tolist() == [*want, end]


@pytest.fixture(scope="module")
def beginning(folder, tmp_path_factory):
    """A Llama of random weights; its tokenizer has a first token and does not say whether texts get it."""
    out = tmp_path_factory.mktemp("llama")
    tokenizer = Tokenizer.load(folder)
    model = Llama(tokenizer.vocabulary, 32, 16, 2, 2, 2, 24)
    params = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))["params"]
    save_pretrained(
        out, model, jax.tree.map(lambda x: 5 * x, params), config={"bos_token_id": 9, "eos_token_id": 8}
    )
    tokenizer.save(out / "tokenizer.json")
    return out


@pytest.mark.parametrize(
    ("files", "begin"),
    [
        ({}, 9),
        ({"tokenizer_config_json": {"add_bos_token": False}}, None),
        ({"tokenizer_config_json": {"add_bos_token": True}}, 9),
        ({"tokenizer_config_json": {"tokenizer_class": "LlamaTokenizerFast"}}, 9),
        ({"tokenizer_config_json": {"tokenizer_class": "GPT2Tokenizer"}}, None),
        ({"tokenizer_config_json": {"tokenizer_class": "PreTrainedTokenizerFast"}}, None),
        ({"tokenizer_config_json": {"add_bos_token": True, "bos_token": "the"}}, "the"),
    ],
    ids=str,
)
def test_texts_are_scored_with_a_first_token_where_the_tokenizer_puts_one(
    beginning, capsys, tmp_path, files, begin
):
    """The loss of the command, and that of the model itself on the tokens, by transformers."""
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    out = retold(beginning, tmp_path / "a", **files)
    (tmp_path / "a.txt").write_text(TEXT[:20])
    assert open_text_model(out).decoder.begin == (
        Tokenizer.load(out).token(begin) if isinstance(begin, str) else begin
    )
    if begin is not None and files:
        return
    status, said = main(capsys, "evaluate", out, "--texts", tmp_path / "a.txt", "--json")
    assert status == 0
    tokens = torch.tensor([[*([] if begin is None else [begin]), *Tokenizer.load(out).encode(TEXT[:20])]])
    with torch.no_grad():
        want = float(transformers.LlamaForCausalLM.from_pretrained(out)(tokens, labels=tokens).loss)
    assert json.loads(said.splitlines()[-1])["metrics"]["a.txt/loss"] == pytest.approx(want, rel=1e-3)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"generation_config_json": {"suppress_tokens": [3]}},
            r"generation_config.json: got suppress_tokens \[3\]; expected none",
        ),
        (
            {"generation_config_json": {"stop_strings": ["x"]}},
            r"got stop_strings \['x'\]; .*and give the strings with --stop",
        ),
        (
            {"config_json": {"min_length": 5}},
            r"config.json: got min_length 5; expected none, the only value that is followed",
        ),
        (
            {"generation_config_json": {"eos_token_id": ["x"]}},
            r"got eos_token_id \['x'\]; expected a token",
        ),
        (
            {"generation_config_json": {"eos_token_id": "1"}},
            r"a/generation_config.json: got eos_token_id '1'; expected a token",
        ),
        ({"config_json": {"eos_token_id": "1"}}, r"a/config.json: got eos_token_id '1'; expected a token"),
        (
            {"generation_config_json": {"eos_token_id": [1, 99999]}},
            r"a/generation_config.json: got eos_token_id \[1, 99999\]; expected numbers below \d+",
        ),
        (
            {"config_json": {"eos_token_id": 99999}},
            r"a/config.json: got eos_token_id 99999; expected numbers below",
        ),
        (
            {"config_json": {"activation_function": "relu"}},
            r"a/config.json: gpt2: got activation_function 'relu'; expected 'gelu_new'",
        ),
    ],
    ids=str,
)
def test_settings_of_generation_that_are_not_followed_are_refused_by_name(folder, tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        open_text_model(retold(folder, tmp_path / "a", **files))


def test_a_token_that_the_model_has_not_is_named(folder, tmp_path):
    vocabulary = Tokenizer.load(folder).vocabulary
    added = {str(vocabulary): {"content": "<new>", "special": True}}
    made = open_text_model(
        retold(folder, tmp_path / "a", tokenizer_config_json={"added_tokens_decoder": added})
    )
    with pytest.raises(
        ValueError,
        match=rf"got the token {vocabulary}, '<new>', in a text for a model of {vocabulary} tokens",
    ):
        made.decoder.encode("a <new> b")
