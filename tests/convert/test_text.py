"""A folder of weights with a tokenizer as a model that writes and scores, from the command line too."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.convert.load import save_pretrained
from jaxmodels.convert.text import open_text_model
from jaxmodels.data.tokenizer import Tokenizer
from jaxmodels.decoding import write
from jaxmodels.models.gpt import GPT

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
