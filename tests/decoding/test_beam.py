"""Beam search against an exhaustive one. Dimensions: B batch, K beams, N tokens, V vocabulary."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.decoding import beam, generate
from jaxmodels.decoding.beam import penalty
from jaxmodels.models.gpt import GPT
from jaxmodels.tasks.language import decoder

V, N, END = 4, 3, 3
MODEL = GPT(V, 16, 8, 2, 2)


@pytest.fixture(scope="module")
def made():
    """(decoder, params) of a model that is far from uniform."""
    params = MODEL.init(jax.random.key(5), jnp.zeros((1, 4), jnp.int32))["params"]
    params = jax.tree.map(lambda x: 15 * x, params)

    def encode(text):
        return [int(c) for c in text]

    return decoder(MODEL, encode=encode, decode=lambda tokens: "".join(map(str, tokens)), end=END), params


def every_text(params, prompt: list[int], alpha: float) -> list[tuple[float, tuple[int, ...]]]:
    """(score, tokens without the end) of all that can follow, best first."""
    texts = [t for n in range(N) for t in itertools.product(range(END), repeat=n)]
    found = [(t, (*t, END)) for t in texts] + [(t, t) for t in itertools.product(range(END), repeat=N)]
    apply = jax.jit(MODEL.apply)
    scores = []
    for text, scored in found:
        whole = np.zeros((1, 12), np.int32)
        whole[0, : len(prompt) + len(scored)] = [*prompt, *scored]
        logs = jax.nn.log_softmax(apply({"params": params}, whole))[0]
        total = sum(float(logs[len(prompt) - 1 + i, token]) for i, token in enumerate(scored))
        scores.append((total / penalty(len(scored), alpha), text))
    return sorted(scores, reverse=True)


@pytest.mark.parametrize("alpha", [0.0, 0.6, 1.0])
def test_a_beam_as_wide_as_all_texts_finds_the_best_ones(made, alpha):
    prompts = [[0, 1, 2], [2]]
    tokens_BT = np.array([[0, 1, 2], [2, 0, 0]], np.int32)
    found = beam(*made, {}, tokens_BT, np.array([3, 1], np.int32), width=27, tokens=N, alpha=alpha)
    for b, prompt in enumerate(prompts):
        want = every_text(made[1], prompt, alpha)[:5]
        for k, (score, text) in enumerate(want):
            assert tuple(found.tokens_BKN[b, k, : found.count_BK[b, k]].tolist()) == text
            assert float(found.score_BK[b, k]) == pytest.approx(score, rel=1e-4, abs=1e-4)


def test_a_beam_of_one_without_a_penalty_is_greedy(made):
    greedy = generate(*made, {}, ["01", "2"], tokens=6, temperature=0)
    beams = generate(*made, {}, ["01", "2"], tokens=6, beams=1, alpha=0.0)
    assert [one.tokens for one in beams] == [one.tokens for one in greedy]


def test_the_result_does_not_depend_on_the_neighbours(made):
    together = generate(*made, {}, ["01", "2", "0120"], tokens=6, beams=3)
    alone = [generate(*made, {}, [prompt], tokens=6, beams=3)[0] for prompt in ("01", "2", "0120")]
    assert [one.tokens for one in together] == [one.tokens for one in alone]


def test_more_tokens_than_the_model_sees_are_refused(made):
    with pytest.raises(
        ValueError,
        match=r"got 22 tokens of prompt and output; expected at most the model.s 16. Ask for fewer",
    ):
        generate(*made, {}, ["01"], tokens=20, beams=2)
