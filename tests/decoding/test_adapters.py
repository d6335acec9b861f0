"""Several adapters on one base: each row gets what its merged model gives, by one program for any mix."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import GPT_SIZES

from jaxmodels.decoding import generate
from jaxmodels.decoding.adapters import ROWS, with_adapters
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.moe import MoE
from jaxmodels.models.t5 import T5
from jaxmodels.tasks import language, translate
from jaxmodels.tasks.lora import merge

V, T = 13, 5
SIZES = {"vocabulary": V, "length": 16, "width": 8, "depth": 2, "heads": 2, "key_heads": 1}
TOKENS = np.random.default_rng(0).integers(0, V, (4, T)).astype(np.int32)
COUNT = jnp.asarray([5, 3, 4, 5])
CASES = {
    "gpt": (GPT(**{**GPT_SIZES, "vocabulary": V, "length": 16}), ("blocks/qkv", "blocks/down")),
    "llama": (Llama(**SIZES, hidden_width=12), ("blocks/attention/query", "blocks/up")),
    "moe": (MoE(**SIZES, experts=3, chosen=2, expert_width=6), ("blocks/attention/out",)),
    "t5": (
        T5(vocabulary=V, length=16, width=8, depth=2, heads=2, head_width=4, hidden_width=12),
        ("encoder/value", "decoder/source_query"),
    ),
}
NAMES = ("one", "two", "three")


def decoder_of(model):
    def encode(text):
        return [int(word) for word in text.split()]

    def decode(tokens):
        return " ".join(map(str, tokens))

    if isinstance(model, T5):
        return translate.decoder(model, encode=encode, decode=decode, begin=0, end=1)
    return language.decoder(model, encode=encode, decode=decode)


def adapters_of(params, modules):
    """Three of different ranks and sizes; the second one has the first module alone."""
    adapters = {}
    for n, name in enumerate(NAMES):
        rng = np.random.default_rng(n)
        adapters[name] = {}
        for module in modules[:1] if n == 1 else modules:
            kernel = params
            for part in module.split("/"):
                kernel = kernel[part]
            *stack, I, O = kernel["kernel"].shape
            pair = {"a": rng.normal(size=(*stack, I, n + 1)), "b": rng.normal(size=(*stack, n + 1, O))}
            adapters[name][module + "/kernel"] = jax.tree.map(lambda x: x.astype(np.float32), pair)
    return adapters


@pytest.fixture(params=CASES)
def served(request):
    """(decoder, params, adapters, the wrapped decoder and its params)."""
    model, modules = CASES[request.param]
    example = (TOKENS, TOKENS) if request.param == "t5" else (TOKENS,)
    params = random(model, *example)
    adapters, decoder = adapters_of(params, modules), decoder_of(model)
    wrapped, together, names = with_adapters(decoder, params, adapters)
    assert names == NAMES
    return decoder, params, adapters, wrapped, together


def random(model, *example):
    """Parameters of which none is zero or one."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), *example)["params"]
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape) * 0.3, jnp.float32), shapes)


def two_steps(decoder, params, extra):
    """The logits after the prompts, and after one more token."""
    logits, cache = decoder.read(params, extra, TOKENS, COUNT, 8)
    return logits, decoder.write(params, extra, jnp.asarray([1, 2, 3, 4]), cache)[0]


def test_each_rows_logits_are_those_of_its_merged_model_whatever_the_mix(served):
    decoder, params, adapters, wrapped, together = served
    run = jax.jit(two_steps, static_argnums=0)
    merged = [params, *(merge(params, adapters[name], 1.0) for name in NAMES)]
    want = np.stack([run(decoder, one, {}) for one in merged])
    apart = jax.jit(lambda params, extra: two_steps(wrapped, params, extra))
    for mix in ([3, 0, 2, 1], [1, 1, 0, 3]):
        got = np.stack(apart(together, {ROWS: jnp.asarray(mix, jnp.int32)}))
        for row, index in enumerate(mix):
            np.testing.assert_allclose(got[:, row], want[index, :, row], rtol=1e-5, atol=3e-5)
    assert apart._cache_size() == 1
    assert np.abs(want[1:] - want[0]).max(axis=(1, 2, 3)).min() > 1e-2


def test_a_number_is_for_all_rows_and_without_one_all_have_the_base():
    model, modules = CASES["gpt"]
    params, decoder = random(model, TOKENS), decoder_of(model)
    adapters = adapters_of(params, modules)
    wrapped, together, _ = with_adapters(decoder, params, adapters)

    def logprobs(decoder, params, extra):
        texts = generate(decoder, params, extra, ["1 2 3", "4 5"], tokens=6, temperature=0)
        return np.array([text.logprobs for text in texts])

    base = logprobs(decoder, params, {})
    np.testing.assert_allclose(logprobs(wrapped, together, {}), base, atol=1e-5)
    of_two = logprobs(decoder, merge(params, adapters["two"], 1.0), {})
    np.testing.assert_allclose(logprobs(wrapped, together, {ROWS: 2}), of_two, atol=1e-5)
    assert np.abs(of_two - base).max() > 1e-3


def test_an_adapter_of_what_is_applied_otherwise_is_refused():
    model, _ = CASES["moe"]
    params, decoder = random(model, TOKENS), decoder_of(model)
    pair = {"a": np.zeros((2, 3, 8, 1)), "b": np.zeros((2, 3, 1, 6))}
    with pytest.raises(ValueError, match=r"an adapter of blocks/experts/up; .* blocks/attention/key/kernel"):
        with_adapters(decoder, params, {"x": {"blocks/experts/up": pair}})
    extra = {"other": {"kernel": jnp.zeros((8, 8))}, **params}
    pair = {"a": np.zeros((8, 1)), "b": np.zeros((1, 8))}
    with pytest.raises(ValueError, match=r"an adapter of other/kernel, which the model does not apply"):
        with_adapters(decoder, extra, {"x": {"other/kernel": pair}})
