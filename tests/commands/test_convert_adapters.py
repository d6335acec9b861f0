"""Adapters in commands: merged by convert, generate and load, kept apart by load, written from a run."""

from __future__ import annotations

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmodels
from jaxmodels import cli
from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.peft import load_adapter, save_adapter
from jaxmodels.convert.save import save_pretrained
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.decoding import generate
from jaxmodels.models.gpt import GPT
from jaxmodels.paths import by_path
from jaxmodels.runs.open_run import model_variables, open_run

pytest.importorskip("tokenizers")

HOW = {"tokens": 6, "temperature": 0}
EXPERIMENT = """
from dataclasses import dataclass
import numpy as np
from jaxmodels import Experiment, optim
from jaxmodels.convert.text import open_text_model
from jaxmodels.data.pipeline import WindowPipeline
from jaxmodels.tasks.lora import lora
from jaxmodels.tasks.pretrained import start_from

@dataclass(frozen=True, kw_only=True)
class Config:
    weights: str = ""
    steps: int = 3

def build(config):
    base = open_text_model(config.weights)
    tokens = np.tile(np.arange(40, dtype=np.int32), 9)
    return Experiment(
        task=lora(start_from(base.task, base.params), rank=2, alpha=6, paths=r"blocks/(qkv|up)/kernel"),
        optimizer=optim.adam(0.1), train=WindowPipeline(tokens, length=8, batch=8),
        steps=config.steps, decoder=base.decoder)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder with weights, "base", and adapters "one" and "two"."""
    folder = tmp_path_factory.mktemp("folders")
    tokenizer = Tokenizer.train(["the cat sat on the mat with a hat. "] * 9, vocabulary=280)
    model = GPT(tokenizer.vocabulary, 32, 16, 2, 2)
    params = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))["params"]
    save_pretrained(folder / "base", model, jax.tree.map(lambda x: 10 * x, params))
    tokenizer.save(folder / "base" / "tokenizer.json")
    for n, name in enumerate(("one", "two")):
        rng = np.random.default_rng(n)
        pair = {"a": rng.normal(size=(2, 16, 2)), "b": rng.normal(size=(2, 2, 48))}
        save_adapter(folder / name, model, {"blocks/qkv/kernel": pair})
    return folder


def text_of(folder, **options):
    [text] = jaxmodels.generate(folder, prompt="the cat", **HOW, **options)
    return text.tokens


def test_merged_weights_write_as_the_base_with_the_adapter_and_as_rows_kept_apart(folders, tmp_path, capsys):
    base = folders / "base"
    plain, one, two = text_of(base), *(text_of(base, adapter=folders / name) for name in ("one", "two"))
    assert plain != one != two
    line = ["convert", base, tmp_path / "merged", "--adapter", folders / "one", "--json"]
    assert cli.main([str(word) for word in line]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] > 0
    assert text_of(tmp_path / "merged") == one
    apart = jaxmodels.load(base, adapters={name: folders / name for name in ("one", "two")})
    assert apart.adapters == ("one", "two")
    rows = {"adapter_B": jnp.asarray([2, 0, 1, 0])}
    texts = generate(apart.decoder, apart.params, rows, ["the cat"] * 3, **HOW)
    assert [text.tokens for text in texts] == [two, plain, one]


def test_what_a_run_trained_becomes_a_folder_of_peft(folders, tmp_path, capsys):
    (tmp_path / "tuned.py").write_text(EXPERIMENT)
    run, base = tmp_path / "run", folders / "base"
    jaxmodels.train(tmp_path / "tuned.py", folder=str(run), mesh="data=1", weights=str(base))
    assert cli.main(["convert", str(run), str(tmp_path / "adapter"), "--base", str(base), "--quiet"]) == 0
    model, params, _, _ = load_pretrained(base, adapter=tmp_path / "adapter")
    experiment, state, _ = open_run(run, parts="model", mesh="data=1")
    want, _ = model_variables(experiment, state, "float32")
    for (name, x), y in zip(by_path(params).items(), by_path(want).values(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)
    assert set(load_adapter(tmp_path / "adapter", model)) == {"blocks/qkv/kernel", "blocks/up/kernel"}
    text = text_of(run, mesh="data=1")
    assert text_of(base, adapter=tmp_path / "adapter") == text
    capsys.readouterr()
    for words, said in [
        ((run, tmp_path / "x", "--base", base, "--adapter", folders / "one"), "got --adapter and --base"),
        ((run, tmp_path / "adapter", "--base", base), "a folder that is not empty"),
    ]:
        assert cli.main(["convert", *map(str, words)]) == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_an_adapter_for_a_run_is_refused(folders, tmp_path):
    (tmp_path / "knobs.json").write_text("{}")
    for use in (jaxmodels.load, jaxmodels.generate):
        with pytest.raises(ValueError, match="adapter for a run"):
            use(tmp_path, adapter=folders / "one")
