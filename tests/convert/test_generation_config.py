"""What a folder asks for in how its texts are drawn is said, with the options that do it."""

from __future__ import annotations

import dataclasses
import inspect
import json
import shlex
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxmodels
from jaxmodels import cli
from jaxmodels.cli.parsing import given
from jaxmodels.commands.generate import GenerateOptions
from jaxmodels.convert.generation_config import GenerationSettings
from jaxmodels.convert.save import save_pretrained
from jaxmodels.convert.text import open_text_model
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.decoding import generate
from jaxmodels.decoding.sample import SamplingOptions
from jaxmodels.models.gpt import GPT

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.fast
TEXT = "the cat sat on the mat with a hat. "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Its greedy text without a penalty repeats itself."""
    folder = tmp_path_factory.mktemp("release")
    tokenizer = Tokenizer.train([TEXT] * 9, vocabulary=280)
    model = GPT(tokenizer.vocabulary, 64, 16, 2, 2)
    params = jax.jit(model.init)(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))["params"]
    save_pretrained(folder, model, jax.tree.map(lambda x: 10 * x, params))
    tokenizer.save(folder / "tokenizer.json")
    (folder / "generation_config.json").write_text(
        json.dumps({"repetition_penalty": 1.5, "do_sample": False, "max_new_tokens": 9, "temperature": 0.3})
    )
    return folder


def unmet(settings, *given):
    return GenerationSettings(Path("g.json"), settings).unmet(given)


@pytest.mark.parametrize(
    ("settings", "names", "ways"),
    [
        ({"repetition_penalty": 1.5}, "repetition_penalty 1.5", "give --repetition-penalty 1.5"),
        ({"num_beams": 3, "do_sample": False}, "num_beams 3", "give --beams 3"),
        (
            {"repetition_penalty": 1.5, "num_beams": 3, "length_penalty": 2.0},
            "repetition_penalty 1.5, num_beams 3, length_penalty 2.0",
            "give --repetition-penalty 1.5 (not with --beams) --beams 3 --alpha (by another formula)",
        ),
        (
            {
                "do_sample": True,
                "temperature": 0.6,
                "top_p": 0.9,
                "top_k": 50,
                "max_new_tokens": 7,
                "max_length": 9,
            },
            "do_sample True, temperature 0.6, top_k 50, top_p 0.9, max_new_tokens 7",
            "give --temperature 0.6 --top-k 50 --top-p 0.9 --tokens 7",
        ),
        ({"do_sample": True}, "do_sample True", "give --temperature 1"),
        ({"do_sample": False, "top_k": 5}, "do_sample False", "give --temperature 0"),
        ({"max_length": 99}, "max_length 99", "give --tokens (it counts the tokens before the text too)"),
        (
            {"min_p": 0.1, "typical_p": 0.5, "early_stopping": True},
            "min_p 0.1, typical_p 0.5, early_stopping True",
            "give --min-p 0.1; no option does early_stopping, typical_p",
        ),
        ({"penalty_alpha": 0.6}, "penalty_alpha 0.6", "no option does penalty_alpha"),
        ({"temperature": "hot"}, "temperature hot", "give --temperature"),
    ],
    ids=str,
)
def test_what_is_asked_for_is_named_with_its_value_and_the_option_that_does_it(settings, names, ways):
    got = unmet(settings)
    said, _, rest = got.partition(", which is done only where options say it: ")
    assert rest == ways
    assert said.startswith("g.json asks for ")
    assert sorted(said.removeprefix("g.json asks for ").split(", ")) == sorted(names.split(", "))


def test_what_the_caller_chose_and_what_asks_for_nothing_is_not_named():
    usual = {
        "temperature": 1.0,
        "top_k": 50,
        "top_p": 1.0,
        "num_beams": 1,
        "length_penalty": 1.0,
        "max_length": 20,
    }
    usual |= {
        "repetition_penalty": 1.0,
        "early_stopping": False,
        "eos_token_id": 3,
        "transformers_version": "4.0",
    }
    assert unmet(usual) == ""
    assert unmet({"length_penalty": 2.0}) == ""  # of no effect without beams
    assert "length_penalty 2.0" in unmet({"length_penalty": 2.0}, "beams")
    both = {"repetition_penalty": 1.5, "num_beams": 3}
    assert unmet(both, "beams", "repetition_penalty") == ""
    assert "num_beams" not in unmet(both, "beams")
    assert unmet({"do_sample": True, "temperature": 0.6}, "temperature") == ""
    assert unmet({"max_new_tokens": 9, "max_length": 99}, "tokens") == ""


@pytest.mark.slow
def test_the_options_that_the_sentence_names_write_what_transformers_writes(folder, capsys):
    transformers, torch = pytest.importorskip("transformers"), pytest.importorskip("torch")
    heard: list[str] = []
    with pytest.warns(
        UserWarning, match=r"generation_config.json asks for do_sample False, .* --repetition-penalty 1.5"
    ):
        open_text_model(folder)
    jaxmodels.generate(folder, prompt="the cat", warn=heard.append)
    [sentence] = heard
    assert sentence.startswith(f"{folder / 'generation_config.json'} asks for ")
    options = shlex.split(sentence.rpartition("give ")[2])
    assert sorted(options[::2]) == ["--repetition-penalty", "--temperature", "--tokens"]
    assert cli.main(["generate", str(folder), "--prompt", "the cat", "--json", *options]) == 0
    out, err = capsys.readouterr()
    assert "asks for" not in err
    prompt = torch.tensor([Tokenizer.load(folder).encode("the cat")])
    theirs = transformers.GPT2LMHeadModel.from_pretrained(folder)
    want = theirs.generate(prompt, attention_mask=torch.ones_like(prompt))[0, prompt.shape[1] :].tolist()
    assert json.loads(out)["texts"][0]["tokens"] == want
    plain = theirs.generate(prompt, attention_mask=torch.ones_like(prompt), repetition_penalty=1.0)
    assert plain[0, prompt.shape[1] :].tolist() != want


@pytest.mark.slow
def test_the_command_says_it_once_and_not_of_options_given_with_their_default(folder, capsys):
    assert (
        cli.main(
            ["generate", str(folder), "--prompt", "the", "a", "--tokens", "200", "--repetition_penalty=1.0"]
        )
        == 0
    )
    err = " ".join(capsys.readouterr().err.split())
    assert err.count("asks for") == 1
    assert "asks for do_sample False, which is done only where options say it: give --temperature 0" in err
    assert given(["--top-k", "3", "--min_p=0.0", "x", "--prompt", "beams"], GenerateOptions) == {
        "top_k",
        "min_p",
        "prompt",
    }


def test_an_option_that_is_not_given_has_the_default_that_its_help_says():
    python = {
        **SamplingOptions._field_defaults,
        **{n: p.default for n, p in inspect.signature(generate).parameters.items()},
    }
    want = {
        field.name: field.default
        for field in dataclasses.fields(GenerateOptions)
        if field.name not in ("prompt", "adapter")
    }
    assert {name: python[name] for name in want} == want
