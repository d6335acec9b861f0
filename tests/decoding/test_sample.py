"""Sampling: which token is drawn, and that a cache changes nothing.

Dimensions: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from files import tiny_gpt
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.decoding import generate
from jaxmodels.decoding.logits import filter_logits, penalise_repetition
from jaxmodels.interfaces import Decoder

fast = pytest.mark.fast

V = 7
LOGITS_BV = np.random.default_rng(0).normal(size=(3, V)).astype(np.float32) * 2


def sampled(logits_BV, key, *, temperature: float = 1.0, **options):
    """One token for each row, as the sampler draws it."""
    logits_BV = logits_BV.astype(jnp.float32)
    return (
        jax.random.categorical(key, filter_logits(logits_BV / temperature, **options))
        if temperature
        else logits_BV.argmax(-1)
    )


def generate_text(decoder, params, extra, prompt, **options):
    return generate(decoder, params, extra, [prompt], **options)[0].text


def drawn(n: int = 3000, **options) -> np.ndarray:
    """(n, B) tokens, each row from a key of its own."""
    keys = jax.random.split(jax.random.key(0), n)
    options = {"temperature": 1.0, **options}
    return np.asarray(jax.jit(jax.vmap(lambda key: sampled(jnp.asarray(LOGITS_BV), key, **options)))(keys))


def frequencies(tokens_NB: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(column, minlength=V) / len(column) for column in tokens_NB.T])


def softmax(logits_BV: np.ndarray) -> np.ndarray:
    p_BV = np.exp(logits_BV - logits_BV.max(-1, keepdims=True))
    return p_BV / p_BV.sum(-1, keepdims=True)


# One token


@fast
@pytest.mark.parametrize(
    "options", [{"temperature": 0.0}, {"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-4}], ids=str
)
def test_these_always_take_the_likeliest_token(options):
    np.testing.assert_array_equal(drawn(200, **options), np.broadcast_to(LOGITS_BV.argmax(-1), (200, 3)))


@fast
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_says(temperature):
    got_BV, p_BV = frequencies(drawn(temperature=temperature)), softmax(LOGITS_BV / temperature)
    np.testing.assert_allclose(got_BV, p_BV, atol=5 * np.sqrt(0.25 / 3000))


@fast
@pytest.mark.parametrize("k", [2, 4, V, V + 5])
def test_with_top_k_only_the_k_likeliest_come_and_in_their_own_proportions(k):
    likeliest_BV = (-LOGITS_BV).argsort(-1).argsort(-1) < k
    got_BV = frequencies(drawn(top_k=k))
    assert not got_BV[~likeliest_BV].any()
    p_BV = softmax(np.where(likeliest_BV, LOGITS_BV, -np.inf))
    np.testing.assert_allclose(got_BV, p_BV, atol=5 * np.sqrt(0.25 / 3000))


@fast
@pytest.mark.parametrize("p", [0.3, 0.6, 0.9, 0.999])
def test_with_top_p_the_nucleus_is_the_smallest_set_that_reaches_p(p):
    got_BV = frequencies(drawn(top_p=p))
    for got_V, p_V in zip(got_BV, softmax(LOGITS_BV), strict=True):
        order = (-p_V).argsort()
        size = int(np.searchsorted(np.cumsum(p_V[order]), p) + 1)
        assert not got_V[order[size:]].any()
        nucleus = np.zeros(V)
        nucleus[order[:size]] = p_V[order[:size]] / p_V[order[:size]].sum()
        np.testing.assert_allclose(got_V, nucleus, atol=5 * np.sqrt(0.25 / 3000))


@pytest.mark.slow
@fast
@given(
    st.lists(st.integers(-40, 40), min_size=6, max_size=6, unique=True),
    st.sampled_from([0, 1, 3, 9]),
    st.floats(0.01, 1.0),
    st.integers(0, 1000),
)
def test_what_is_drawn_is_among_the_k_likeliest_and_in_the_nucleus_of_those(quarters, k, p, seed):
    logits_V = np.array(quarters, np.float32) / 4
    token = int(
        sampled(jnp.asarray(logits_V)[None], jax.random.key(seed), temperature=1.0, top_k=k, top_p=p)[0]
    )
    order = (-logits_V).argsort()[: k or None]
    rank = order.tolist().index(token)  # among the k likeliest
    before = softmax(logits_V[None, order])[0, :rank].sum()
    assert before < p + 1e-5


@pytest.mark.slow
@fast
def test_half_precision_logits_are_drawn_from_in_float32():
    big = jnp.asarray([[60000.0, 0.0]], jnp.float16)
    assert int(sampled(big, jax.random.key(0), temperature=0.5)[0]) == 0


# Texts


@pytest.fixture(scope="module")
def gpt():
    """(decoder, params, logits without a cache) of a model that has not learned anything."""
    experiment = tiny_gpt.build(tiny_gpt.Config())
    batch = {"inputs": jnp.zeros((1, tiny_gpt.LENGTH), jnp.int32)}
    params, _ = jax.jit(experiment.task.init)(jax.random.key(3), batch)
    params = jax.tree.map(lambda x: 20 * x, params)  # far from uniform
    cacheless = jax.jit(tiny_gpt.gpt(tiny_gpt.Config()).apply)

    def logits(tokens: list[int]) -> np.ndarray:
        padded = np.zeros((1, tiny_gpt.LENGTH), np.int32)
        padded[0, : len(tokens)] = tokens  # what follows is not seen
        return np.asarray(cacheless({"params": params}, padded))[0, len(tokens) - 1]

    return experiment.decoder, params, logits


def greedy(decoder: Decoder, logits, prompt: str, tokens: int) -> str:
    """The likeliest continuation, each token from the whole context again."""
    seen = list(decoder.encode(prompt))
    context, out = seen[-(decoder.length - 1) :], []
    for _ in range(tokens):
        if len(context) > decoder.length:
            context = seen[-(decoder.length // 2) :]
        out.append(int(logits(context).argmax()))
        seen.append(out[-1])
        context.append(out[-1])
    return decoder.decode(out)


@pytest.mark.parametrize("prompt", ["a", "abc", "abcdefg", "abcdefgh", "hgfedcbahgfedcba"])
def test_greedy_text_is_the_argmax_without_a_cache(gpt, prompt):
    """Prompts shorter than, as long as and longer than the context of 8, and texts that run past it."""
    decoder, params, logits = gpt
    text = generate_text(decoder, params, {}, prompt, tokens=20, temperature=0)
    assert len(text) == 20
    assert text == greedy(decoder, logits, prompt, 20)


def test_of_a_long_prompt_the_end_counts(gpt):
    decoder, params, _ = gpt
    texts = [
        generate_text(decoder, params, {}, before + "abcdefg", tokens=12, temperature=1.0)
        for before in ("", "j", "jij" * 30)
    ]
    assert texts == texts[:1] * 3


def test_the_same_seed_gives_the_same_text_and_another_one_another(gpt):
    decoder, params, _ = gpt
    texts = [
        generate_text(decoder, params, {}, "ab", tokens=30, temperature=2.0, seed=seed) for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]


def test_a_longer_text_begins_as_the_shorter_one(gpt):
    decoder, params, _ = gpt
    short, long = (
        generate_text(decoder, params, {}, "ab", tokens=tokens, temperature=1.0) for tokens in (5, 15)
    )
    assert long.startswith(short)


def counting(**options) -> Decoder:
    """A model that always says the number after the last one."""

    def logits(token_B):
        return jax.nn.one_hot((token_B + 1) % 10, 10) * 100

    def read(params, extra, tokens_BT, count_B, length):
        assert length <= max(made.length, 2) or made.source
        return logits(tokens_BT[jnp.arange(len(count_B)), count_B - 1]), {
            "empty": jnp.zeros((1, len(count_B)))
        }

    def encode(text):
        return [int(c) for c in text]

    def decode(tokens):
        return "".join(map(str, tokens))

    made = Decoder(
        read,
        lambda params, extra, token_B, cache: (logits(token_B), cache),
        encode,
        decode,
        **{"length": 4, **options},
    )
    return made


@pytest.mark.slow
@fast
def test_an_end_token_ends_the_text_and_is_not_in_it():
    assert generate_text(counting(end=6), {}, {}, "2", tokens=99) == "345"


@pytest.mark.slow
@fast
def test_a_begin_token_stands_before_every_prompt():
    assert generate_text(counting(begin=7), {}, {}, "", tokens=2) == "89"
    assert generate_text(counting(begin=7), {}, {}, "3", tokens=2) == "45"


@pytest.mark.slow
@fast
@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_model_that_sees_almost_nothing_goes_on_too(length):
    assert generate_text(counting(length=length), {}, {}, "012", tokens=6) == "345678"


@fast
def test_an_empty_prompt_needs_a_token_to_begin_with():
    with pytest.raises(
        ValueError, match=r"got an empty prompt and a model without a begin token; .* Give --prompt"
    ):
        generate_text(counting(), {}, {}, "")


@fast
@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("temperature", -1.0, "0 or more"),
        ("top_k", -1, "or more"),
        ("top_p", 0.0, "above 0 and at most 1"),
        ("top_p", 1.5, "above 0 and at most 1"),
        ("min_p", -0.1, "from 0 to 1"),
        ("repetition_penalty", 0.0, "above 0; 1 is none"),
        ("tokens", 0, "at least 1"),
    ],
)
def test_options_out_of_range_are_refused(option, value, expected):
    with pytest.raises(
        ValueError, match=rf"--{option.replace('_', '-')}: got {value}; expected .*{expected}"
    ):
        generate_text(counting(), {}, {}, "1", **{option: value})


# Several prompts

PROMPTS = ["a", "abcdefgh", "hgfedcbahgfedcba", "abc"]


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0},
        {"temperature": 1.3, "top_k": 4},
        {"temperature": 1.0, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.3},
    ],
    ids=str,
)
def test_a_prompt_gets_the_same_text_alone_and_in_a_batch(gpt, options):
    decoder, params, _ = gpt
    together = generate(decoder, params, {}, PROMPTS, tokens=20, **options)
    alone = [generate(decoder, params, {}, [prompt], tokens=20, **options)[0] for prompt in PROMPTS]
    assert [one.tokens for one in together] == [one.tokens for one in alone]
    np.testing.assert_allclose(together[1].logprobs, alone[1].logprobs, rtol=1e-4, atol=1e-4)


def test_equal_prompts_get_different_texts(gpt):
    decoder, params, _ = gpt
    one, other = generate(decoder, params, {}, ["ab", "ab"], tokens=30, temperature=2.0)
    assert one.text != other.text


def test_log_probabilities_are_those_of_the_model(gpt):
    decoder, params, logits = gpt
    [wrote] = generate(decoder, params, {}, ["ab"], tokens=5, temperature=1.5, top_k=3)
    seen = list(decoder.encode("ab"))
    for token, got in zip(wrote.tokens, wrote.logprobs, strict=True):
        assert got == pytest.approx(float(jax.nn.log_softmax(logits(seen))[token]), rel=1e-3, abs=1e-4)
        seen.append(token)
    assert wrote.score == pytest.approx(sum(wrote.logprobs))


@pytest.mark.parametrize(
    ("stop", "text"), [(["56"], "34"), (["9", "78"], "3456"), (["x"], "34567890"), (["3"], "")]
)
def test_a_stop_string_ends_its_text_and_is_not_in_it(stop, text):
    assert generate(counting(length=99), {}, {}, ["2"], tokens=8, stop=stop)[0].text == text


@fast
def test_an_empty_stop_string_is_refused():
    with pytest.raises(
        ValueError, match=r"got an empty stop string.*; expected at least one character. Leave it out"
    ):
        generate(counting(length=99), {}, {}, ["2"], tokens=8, stop=["56", ""])


@pytest.mark.slow
@fast
def test_text_is_shown_as_it_comes_and_adds_up_to_the_whole():
    shown: list[list[str]] = [[], []]
    texts = generate(
        counting(length=99),
        {},
        {},
        ["2", "5"],
        tokens=60,
        stop=["4567x"],
        show=lambda b, text: shown[b].append(text),
    )
    assert ["".join(parts) for parts in shown] == [wrote.with_prompt for wrote in texts]
    assert [wrote.with_prompt[0] for wrote in texts] == ["2", "5"] and len(shown[0]) > 3


@pytest.mark.slow
@fast
def test_beams_are_shown_whole_and_end_at_stop_strings():
    shown: list[str] = []
    [wrote] = generate(
        counting(length=99),
        {},
        {},
        ["2"],
        tokens=8,
        stop=["78"],
        beams=2,
        show=lambda b, text: shown.append(text),
    )
    assert wrote.text == "3456" and shown == ["2", "3456"]


@pytest.mark.slow
@fast
def test_a_repetition_penalty_lowers_what_has_occurred_and_nothing_else():
    seen_BV = np.zeros((3, V), bool)
    seen_BV[:, 2] = True
    got_BV = penalise_repetition(jnp.asarray(LOGITS_BV), seen_BV, 1.5)
    assert (got_BV[:, 2] < LOGITS_BV[:, 2]).all()
    np.testing.assert_array_equal(np.delete(got_BV, 2, 1), np.delete(LOGITS_BV, 2, 1))


@pytest.mark.slow
@fast
def test_min_p_keeps_what_is_near_the_likeliest():
    kept_BV = np.isfinite(filter_logits(jnp.asarray(LOGITS_BV), min_p=0.2))
    p_BV = softmax(LOGITS_BV)
    np.testing.assert_array_equal(kept_BV, p_BV >= 0.2 * p_BV.max(-1, keepdims=True))


def test_a_prompt_may_be_longer_than_the_largest_power_of_two_in_the_models_length():
    from serving.language import LENGTH, model

    decoder, params = model("gpt")
    assert LENGTH == 48
    assert generate(decoder, params, {}, ["a" * 40], tokens=2, temperature=0)[0].tokens


def test_prompts_of_many_lengths_share_few_programs(gpt):
    decoder, params, _ = gpt
    lengths = []

    def read(params, extra, tokens_BT, *others):  # runs once for each program, when that is traced
        lengths.append(tokens_BT.shape[1])
        return decoder.read(params, extra, tokens_BT, *others)

    for n in range(1, 9):
        generate(decoder._replace(read=read), params, {}, ["a" * n], tokens=4, temperature=0)
    assert 1 <= len(lengths) <= 4
