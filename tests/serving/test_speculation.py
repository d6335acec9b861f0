"""Speculative decoding: drafts change how fast a text comes, never the text."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from serving.language import alone, joined, model, request

from jaxmodels.serving.drafts import Draft, look_up
from jaxmodels.serving.engine import Engine


def engine_of(name: str, **options) -> Engine:
    engine = Engine(*model(name), {}, slots=3, chunk=8, burst=2, **options)
    engine.start()
    return engine


def check(engine: Engine, name: str) -> float:
    """The accepted share, once several texts are those that they are without drafts."""
    asked = [
        request("abcdefghij", tokens=38, temperature=0.0),
        request("abcabcabcabc", tokens=30, temperature=0.4, seed=5),
        request("hijhijhijhi", tokens=30, temperature=1.0, top_p=0.9, repetition_penalty=1.2, seed=6),
        request("jihgfedcba", tokens=17, temperature=0.0, stop=["a"]),
    ]
    streams = [engine.submit(x) for x in asked]
    for x, stream in zip(asked, streams, strict=True):
        got, expected = joined(list(stream)), alone(name, x)
        assert got[:2] == expected[:2]
        np.testing.assert_allclose(got[2], expected[2], atol=1e-3)
    engine.close(drain=True, timeout=10)
    metrics = engine.metrics()
    assert metrics["compilations_total"] == 0
    return metrics["accepted_share"]


def test_texts_are_the_same_with_drafts_from_the_text_itself():
    assert 0 < check(engine_of("llama", lookup=3), "llama") < 1


def test_texts_are_the_same_with_a_small_draft_model():
    assert 0 <= check(engine_of("gpt", draft=Draft(*model("draft"), {}, tokens=3)), "gpt") < 1


@pytest.mark.thorough
def test_a_model_that_drafts_for_itself_is_always_right():
    engine = engine_of("gpt", draft=Draft(*model("gpt"), {}, tokens=3))
    stream = engine.submit(request("abcdefghij", tokens=33, temperature=1.0, seed=8))
    assert (
        joined(list(stream))[1] == alone("gpt", request("abcdefghij", tokens=33, temperature=1.0, seed=8))[1]
    )
    metrics = engine.metrics()
    engine.close(drain=True, timeout=10)
    # The first token comes from the prompt; 8 steps write 4 each, unless the end token comes before.
    assert metrics["accepted_share"] > 0.7


@pytest.mark.parametrize(
    ("context", "last", "drafts"),
    [
        ([5, 1, 2, 7, 8, 1, 2], 6, [7, 8, 1]),  # what followed "1 2"
        ([1, 2, 3, 9, 1, 2, 4, 1, 2], 8, [4, 1, 2]),  # the newest of equal matches
        ([1, 2, 3, 4, 8, 2, 3, 5, 1, 2, 3], 10, [4, 8, 2]),  # the longest match
        ([6, 6], 1, [6, 6, 6]),  # a text that repeats itself
    ],
)
def test_what_followed_the_longest_newest_match_is_drafted(context, last, drafts):
    context_BC = jnp.asarray([context + [0] * (12 - len(context))])
    assert look_up(context_BC, jnp.asarray([last]), 3)[0].tolist() == drafts


def test_without_a_match_something_is_drafted_all_the_same():
    assert look_up(jnp.asarray([[3, 4, 5, 0]]), jnp.asarray([2]), 2).shape == (1, 2)


def test_a_recurrent_model_cannot_take_tokens_back():
    with pytest.raises(ValueError, match="recurrent one; expected a transformer"):
        Engine(*model("lstm"), {}, lookup=2)


def test_a_draft_model_has_the_same_tokens():
    from jaxmodels.models.gpt import GPT
    from jaxmodels.tasks.language import decoder

    other = GPT(vocabulary=5, length=48, width=8, depth=1, heads=2)
    params = jax.jit(other.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    small = decoder(other, encode=lambda text: [0], decode=lambda tokens: "a" * len(tokens))
    with pytest.raises(ValueError, match="got a draft model of 5 tokens and a model of"):
        Engine(*model("gpt"), {}, draft=Draft(small, params, {}))
