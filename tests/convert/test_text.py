"""A folder of weights with a tokenizer as a model that writes and scores, from the command line too."""

from __future__ import annotations

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.convert.load import save_pretrained
from jaxmodels.convert.text import open_text_model
from jaxmodels.data.tokenizer import Tokenizer
from jaxmodels.decoding import write
from jaxmodels.models.bert import Bert
from jaxmodels.models.gpt import GPT
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
    [wrote] = write(made.decoder, made.params, {}, ["the cat"], tokens=5, temperature=0)
    seen = made.decoder.encode("the cat")
    for token in wrote.tokens:
        assert token == int(made.model.apply({"params": made.params}, np.array([seen]))[0, -1].argmax())
        seen = [*seen, token]
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
    assert "holds a model and no experiment, so there is nothing to evaluate on; give --texts" in capsys.readouterr().err


def test_the_command_converts(capsys, folder, tmp_path):
    status, out = main(capsys, "convert", folder, tmp_path / "b", "--json")
    assert status == 0
    assert json.loads(out.splitlines()[-1])["parameters"] > 1000
    assert open_text_model(tmp_path / "b").decoder.end == 0


def test_the_command_tokenizes(capsys, tmp_path):
    (tmp_path / "texts").mkdir()
    for i in range(9):
        (tmp_path / "texts" / f"{i}.txt").write_text(TEXT)
    status, out = main(capsys, "tokenize", tmp_path / "texts", tmp_path / "out", "--vocabulary", 270, "--json")
    assert status == 0
    assert json.loads(out.splitlines()[-1])["train_tokens"] > 0


@pytest.mark.parametrize("value", ["x", -1, 1.5, True])
def test_a_special_token_that_is_no_number_is_refused(folder, tmp_path, value):
    from jaxmodels.convert.text import _token

    with pytest.raises(ValueError, match=r"eos_token_id is .*; wanted the number of a token"):
        _token({"eos_token_id": value}, "eos_token_id", tmp_path)


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
        capsys, "generate", encoder_decoder, "--prompt", "the cat", "--tokens", 4, "--temperature", 0, "--json"
    )
    assert status == 0
    source, target = np.array([[*Tokenizer.load(encoder_decoder).encode("the cat"), 5]]), [0]
    apply = jax.jit(made.model.apply)
    for _ in range(4):
        target.append(int(apply({"params": made.params}, source, np.array([target]))[0, -1].argmax()))
    [wrote] = json.loads(out)["texts"]
    assert wrote["tokens"] == target[1:]


def test_one_with_an_encoder_scores_no_text(capsys, encoder_decoder, tmp_path):
    (tmp_path / "a.txt").write_text(TEXT)
    assert cli.main(["evaluate", str(encoder_decoder), "--texts", str(tmp_path / "a.txt")]) == 2
    assert "turns one text into another, and scores none by itself" in capsys.readouterr().err


def test_an_encoder_alone_writes_nothing(capsys, folder, tmp_path):
    encoder = Bert(11, 8, 8, 1, 2, 12)
    params = jax.jit(encoder.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    save_pretrained(tmp_path / "bert", encoder, params)
    assert cli.main(["generate", str(tmp_path / "bert"), "--prompt", "a"]) == 2
    assert "holds a bert, which does not write text; wanted one that does" in capsys.readouterr().err


def test_a_file_of_llama2c_tells_its_published_story(capsys, real):
    stories = real("weights/stories260K")
    arguments = ("--prompt", "Once upon a time", "--tokens", 60, "--temperature", 0, "--json")
    status, out = main(capsys, "generate", stories / "stories260K.bin", *arguments)
    [wrote] = json.loads(out)["texts"]
    assert status == 0
    assert (stories / "expected_greedy.txt").read_text().startswith("Once upon a time" + wrote["text"])


def test_a_file_of_llama2c_without_its_tokenizer_says_what_is_missing(capsys, real, tmp_path):
    shutil.copyfile(real("weights/stories260K") / "stories260K.bin", tmp_path / "a.bin")
    assert cli.main(["generate", str(tmp_path / "a.bin"), "--prompt", "a"]) == 1
    assert "there is neither tok512.bin nor tokenizer.bin beside" in capsys.readouterr().err
