"""WaveNet: causality, generation by queues, distributions. B batch, T samples, K parameters."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.layers import logistic_mixture
from jaxmodels.layers.dilated_conv import dilated_conv
from jaxmodels.layers.mu_law import inverse_mu_law, mu_law
from jaxmodels.models.wavenet import WaveNet
from jaxmodels.tasks.waveform import generate, next_sample

RANDOM = np.random.default_rng(0)
SMALL = WaveNet((1, 2, 4), 6, 12, levels=16, mixtures=2, categories=(3, 2), hop=4, condition=5)
CATEGORIES = np.array([[0, 1], [2, 0]], np.int32)
FRAMES = RANDOM.normal(size=(2, 6, 3)).astype(np.float32)
GIVEN = {"categories_BN": CATEGORIES, "frames_BLF": FRAMES}
T = 24


def made(model, **given):
    """Random parameters, larger than those of the start, so that sounds vary."""
    x = model.encoded(jnp.zeros((2, T)))
    params = jax.jit(lambda key: model.init(key, x, **given))(jax.random.key(1))
    return jax.tree.map(lambda x: 2 * x, params)


def test_a_dilated_convolution_is_the_sum_of_two_products():
    x, kernel = RANDOM.normal(size=(2, 7, 3)), RANDOM.normal(size=(2, 3, 4))
    got = dilated_conv(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32), 3)
    want = x @ kernel[1]
    want[:, 3:] += (x @ kernel[0])[:, :-3]
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize(
    ("output", "temperature"),
    first(3, [("softmax", 0.0), ("softmax", 1.0), ("logistics", 0.7), ("logistics", 0.0)]),
)
def test_generation_by_queues_is_the_plain_network_sample_by_sample(output, temperature):
    """The plain network sees the sounds that were made, and draws each sample anew by its key."""
    model = SMALL.clone(output=output)
    params, keys_B = made(model, **GIVEN), jax.random.split(jax.random.key(2), 2)
    audio = jax.jit(lambda keys: generate(model, params, keys, T, temperature=temperature, **GIVEN))(keys_B)
    x_BT = model.encoded(audio)
    said_BTK = jax.jit(lambda x: model.apply(params, x, **GIVEN))(x_BT)
    keys_BT = jax.vmap(lambda key: jax.vmap(lambda time: jax.random.fold_in(key, time))(jnp.arange(T)))(
        keys_B
    )
    want_BT = jax.jit(jax.vmap(jax.vmap(lambda said, key: model.draw(said, key, temperature))))(
        said_BTK, keys_BT
    )
    np.testing.assert_allclose(x_BT, want_BT, atol=1e-5)
    assert len(np.unique(x_BT)) > 1


def test_a_sample_is_of_those_before_it_within_the_receptive_field():
    model = SMALL.clone(categories=(), hop=0)
    params, x = made(model), jnp.asarray(RANDOM.integers(0, 16, (1, T)), jnp.int32)
    apply = jax.jit(model.apply)
    whole, changed = apply(params, x), apply(params, x.at[0, 9].add(1))
    differs = np.flatnonzero(np.abs(np.asarray(whole - changed)[0]).max(-1) > 1e-6)
    assert model.receptive_field == 8
    assert set(differs) <= set(range(10, 18)) and {10, 17} <= set(differs)


def test_conditions_of_frames_reach_their_own_samples_and_later_ones():
    params, x = made(SMALL, **GIVEN), SMALL.encoded(jnp.zeros((2, T)))
    apply = jax.jit(lambda frames: SMALL.apply(params, x, categories_BN=CATEGORIES, frames_BLF=frames))
    changed = FRAMES.copy()
    changed[0, 2] += 1
    differs = np.abs(np.asarray(apply(FRAMES) - apply(changed))).max(-1) > 1e-6
    assert not differs[1].any() and not differs[0, :8].any() and differs[0, 8:12].all()


@pytest.mark.parametrize("given", [{}, {"categories_BN": CATEGORIES}])
def test_a_model_refuses_other_conditions_than_its_own(given):
    with pytest.raises(ValueError, match=r"WaveNet: got .* for a model with categories=\(3, 2\) and hop=4"):
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), jnp.zeros((2, T), jnp.int32), **given))


def test_frames_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="got 20 samples and 6 frames of 4; expected as many"):
        jax.eval_shape(lambda: SMALL.init(jax.random.key(0), jnp.zeros((2, 20), jnp.int32), **GIVEN))
    with pytest.raises(ValueError, match="got 20 samples for 6 frames; expected as many"):
        params = jax.eval_shape(lambda: made(SMALL, **GIVEN))
        jax.eval_shape(
            lambda p: generate(SMALL, p, jax.random.split(jax.random.key(0), 2), 20, **GIVEN), params
        )


def test_padding_counts_in_no_sample():
    model = SMALL.clone(categories=(), hop=0)
    task = next_sample(model)
    audio = RANDOM.uniform(-1, 1, (2, T)).astype(np.float32)
    segments = (np.arange(T) < np.array([[T], [9]])).astype(np.int32)
    batch = {"audio": audio, "segments": segments, "weight": np.ones(2, np.float32)}
    params, extra = jax.jit(task.init)(jax.random.key(0), batch)
    loss = jax.jit(task.evaluate)(params, extra, batch)["loss"]
    assert float(loss.weight) == T + 9
    logits = np.asarray(jax.jit(model.apply)({"params": params}, model.encoded(audio)), np.float64)
    levels = np.asarray(model.encoded(jnp.asarray(audio)))
    chance = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = sum(
        -np.log(chance[row, time, levels[row, time]])
        for row in range(2)
        for time in range(T)
        if segments[row, time]
    )
    np.testing.assert_allclose(float(loss.total), want, rtol=1e-4)
    assert task.finish({"loss": np.log(2)})["bits_per_sample"] == pytest.approx(1)


def test_mu_law_has_finer_levels_near_silence_and_returns_each_level():
    levels = jnp.arange(256)
    samples = np.asarray(inverse_mu_law(levels))
    assert np.asarray(mu_law(samples)).tolist() == list(range(256))
    assert samples[0] == -1 and samples[-1] == 1 and np.diff(samples).min() > 0
    assert np.diff(samples)[127] < 1e-3 < 0.03 < np.diff(samples)[-1]
    assert np.asarray(mu_law(jnp.array([-7.0, 7.0]))).tolist() == [0, 255]


def test_the_probabilities_of_all_samples_of_a_mixture_add_up_to_1():
    parameters = jnp.array([0.3, -0.2, -0.9, 0.4, -1.5, -4.0])
    x = jnp.linspace(-1, 1, 64)
    logp = logistic_mixture.log_probability(jnp.broadcast_to(parameters, (64, 6)), x, levels=64)
    np.testing.assert_allclose(np.exp(np.asarray(logp, np.float64)).sum(), 1, rtol=1e-5)
    chance = np.exp([0.3, -0.2]) / np.exp([0.3, -0.2]).sum()
    upto = np.exp(np.asarray(logp, np.float64))[x + 1 / 63 <= 0.5].sum()
    edge = float(x[np.asarray(x + 1 / 63 <= 0.5)].max()) + 1 / 63
    of_component = [1 / (1 + np.exp(-(edge - m) / np.exp(s))) for m, s in ((-0.9, -1.5), (0.4, -4.0))]
    np.testing.assert_allclose(upto, (chance * of_component).sum(), rtol=1e-4)


def test_draws_of_a_mixture_are_distributed_as_it_says():
    parameters = jnp.array([0.3, -0.2, -0.5, 0.4, -2.5, -3.0])
    keys = jax.random.split(jax.random.key(0), 4000)
    drawn = np.asarray(jax.jit(jax.vmap(lambda key: logistic_mixture.draw(parameters, key)))(keys))
    chance = float(jax.nn.softmax(parameters[:2])[1])
    assert abs((drawn > 0).mean() - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)
    assert abs(np.median(drawn[drawn > 0]) - 0.4) < 0.01


def test_no_queue_is_copied_while_sounds_are_generated():
    """Else a sample would cost as much as its receptive field is long."""
    model = WaveNet((37, 1), 6, 5, levels=8)
    x, keys_B = jnp.zeros((2, 4), jnp.int32), jax.random.split(jax.random.key(0), 2)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), x))
    program = jax.jit(lambda params: generate(model, params, keys_B, 16)).lower(params).compile().as_text()
    assert "f32[38,2,6]" in program
    assert len(re.findall(r"f32\[38,2,6\]\S* copy\(", program)) <= 1  # of the empty queue, before the loop
