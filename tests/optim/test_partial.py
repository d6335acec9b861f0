"""Which parameters train and how fast: unchanged bits, absent state, and factors by SGD updates."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from instances import first
from tiny import GPT_SIZES, tokens

from jaxmodels import Experiment, Options, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.gpt import GPT
from jaxmodels.optim import frozen, layerwise, only, skip_spikes
from jaxmodels.optim.partial import FLOOR
from jaxmodels.paths import by_path
from jaxmodels.state import initial
from jaxmodels.step import eval_variables, init, make_step
from jaxmodels.task import Mean, Task, value
from jaxmodels.tasks.language import next_token
from jaxmodels.training import runner

fast = pytest.mark.fast

TASK = next_token(GPT(**GPT_SIZES, tied=False))
BATCH = tokens()
HEAD = r"^(head|norm)"


def by_name(tree):
    return {name: np.asarray(x) for name, x in by_path(tree).items()}


def run(optimizer, steps=3):
    """The states before and after some real steps, and the rates that were logged."""
    before = state = init(TASK, optimizer, 0, BATCH)
    one, rates = jax.jit(make_step(TASK, optimizer)), []
    for _ in range(steps):
        state, metrics = one(state, BATCH)
        rates.append(value(metrics["learning_rate"]))
    return before, state, rates


def moved(before, after):
    """Names of the parameters of which a bit changed."""
    after = by_name(after)
    return {name for name, x in by_name(before).items() if x.tobytes() != after[name].tobytes()}


HEADS = {"head", "norm/scale", "norm/bias"}


def names():
    return set(by_name(jax.eval_shape(TASK.init, jax.random.key(0), BATCH)[0]))


@pytest.mark.parametrize(
    "optimizer",
    [
        optim.adamw(0.1, weight_decay=0.3, clip=1.0),
        optim.sgd(0.1, momentum=0.9, weight_decay=0.3),
        optim.muon(0.1, adam_paths="norm", weight_decay=0.3),
        optim.adafactor(0.1),
        optim.with_ema(optim.adam(0.1)),
        optim.schedule_free_adamw(0.1),
    ],
    ids=["adamw", "sgd", "muon", "adafactor", "ema", "schedule-free"],
)
def test_only_what_is_found_moves_and_all_else_keeps_its_bits(optimizer):
    before, after, _ = run(only(optimizer, HEAD))
    assert moved(before.params, after.params) == HEADS


def test_frozen_is_the_opposite_of_only():
    before, after, _ = run(frozen(optim.adamw(0.1), HEAD))
    assert moved(before.params, after.params) == names() - HEADS


def test_a_run_leaves_frozen_parameters_as_they_were():
    pipeline = ArrayPipeline(BATCH, batch=8, seed=0)
    experiment = Experiment(
        task=TASK, optimizer=frozen(optim.adamw(0.1), "embed|position"), train=pipeline, steps=3
    )
    before = jax.jit(lambda: initial(experiment))()
    after = runner.run(experiment, Options(mesh="data=1")).state
    assert moved(before.params, after.params) == names() - {"embed/embedding", "position"}


@pytest.mark.slow
@fast
def test_adam_keeps_two_moments_of_what_trains_and_nothing_of_the_rest():
    """head (11, 8), and norm's scale and bias of 8; besides them only counters and the rate."""
    params = jax.eval_shape(TASK.init, jax.random.key(0), BATCH)[0]
    state = jax.eval_shape(only(optim.adam(0.1), HEAD).init, params)
    assert sum(x.size for x in jax.tree.leaves(state) if x.ndim) == 2 * (params["head"].size + 8 + 8)


def test_what_trains_does_so_as_if_nothing_else_existed():
    """Also the clip is by the norm of the trained parameters' gradient."""
    params = {"head": jnp.ones((3, 2)), "body": jnp.ones((4, 4))}
    grads = {"head": jnp.full((3, 2), 5.0), "body": jnp.full((4, 4), 1e6)}
    inner, outer = optim.sgd(1.0, clip=0.5), only(optim.sgd(1.0, clip=0.5), "head")
    got, _ = outer.update(grads, outer.init(params), params)
    want, _ = inner.update(
        {"head": grads["head"]}, inner.init({"head": params["head"]}), {"head": params["head"]}
    )
    np.testing.assert_array_equal(got["head"], want["head"])
    assert not got["body"].any()


WRAPPED = {
    "only": lambda optimizer: only(optimizer, HEAD),
    "frozen": lambda optimizer: frozen(optimizer, HEAD),
    "layerwise": lambda optimizer: layerwise(optimizer, 0.5),
    "layerwise-only": lambda optimizer: layerwise(only(optimizer, "blocks|head"), 0.5),
    "only-layerwise": lambda optimizer: only(layerwise(optimizer, 0.5), "blocks|head"),
    "ema-layerwise": lambda optimizer: optim.with_ema(layerwise(optimizer, 0.5), 0.9),
    "spikes": skip_spikes,
    "only-ema": lambda optimizer: only(optim.with_ema(optimizer, 0.9), HEAD),
}


@pytest.mark.parametrize("name", first(3, WRAPPED))
def test_the_log_finds_the_rate_of_each_step(name):
    rate = optim.warmup_linear(0.4, warmup=4, steps=8)
    np.testing.assert_allclose(run(WRAPPED[name](optim.adam(rate)))[2], [0.1, 0.2, 0.3], rtol=1e-5)


# Averages


def test_the_average_is_of_what_trains_and_the_rest_is_evaluated_as_it_is():
    optimizer = only(optim.with_ema(optim.sgd(0.1), 0.5, warmup=False), HEAD)
    state = init(TASK, optimizer, 0, BATCH)
    one = jax.jit(make_step(TASK, optimizer))
    average = by_name(state.params)
    for _ in range(3):
        state, _ = one(state, BATCH)
        now = by_name(state.params)
        average = {
            name: 0.5 * average[name] + 0.5 * now[name] if name in HEADS else now[name] for name in now
        }
    got = by_name(eval_variables(optimizer, state)[0])
    assert set(got) == names()
    for name in names() - HEADS:
        np.testing.assert_array_equal(got[name], average[name], err_msg=name)
    for name in HEADS:
        np.testing.assert_allclose(got[name], average[name], rtol=1e-5, atol=1e-6, err_msg=name)
        assert not np.array_equal(got[name], now[name])


def test_the_average_of_schedule_free_iterates_is_that_of_the_trained_alone():
    params = {"head": jnp.arange(6.0).reshape(3, 2), "body": jnp.ones((4, 4))}
    inner = optim.schedule_free_sgd(0.1)
    outer = only(inner, "head")
    state, alone, head = outer.init(params), inner.init({"head": params["head"]}), {"head": params["head"]}
    for n in range(3):
        grads = {"head": jnp.full((3, 2), n + 1.0), "body": jnp.ones((4, 4))}
        updates, state = outer.update(grads, state, params)
        mine, alone = inner.update({"head": grads["head"]}, alone, head)
        params, head = optax.apply_updates(params, updates), optax.apply_updates(head, mine)
    got = outer.average(state, params)
    np.testing.assert_allclose(got["head"], inner.average(alone, head)["head"], rtol=1e-6)
    np.testing.assert_array_equal(got["body"], np.ones((4, 4)))
    assert not np.array_equal(got["head"], params["head"])


def test_a_layerwise_optimizer_may_be_averaged():
    optimizer = optim.with_ema(layerwise(optim.sgd(0.1), 0.5), 0.5, warmup=False)
    before, after, _ = run(optimizer, steps=1)
    got, new = by_name(eval_variables(optimizer, after)[0]), by_name(after.params)
    for name, old in by_name(before.params).items():
        np.testing.assert_allclose(got[name], 0.5 * old + 0.5 * new[name], rtol=1e-5, atol=1e-7, err_msg=name)


@fast
def test_decay_of_updates_that_were_averaged_already_is_an_error():
    with pytest.raises(
        ValueError, match=r"averages parameters; expected one that does not.*with_ema\(layerwise"
    ):
        layerwise(optim.with_ema(optim.sgd(0.1)), 0.5)


# Factors

LAYERS = 3
STACKED = {
    "embed": {"embedding": jnp.ones((5, 2))},
    "position": jnp.ones((4, 2)),
    "type": jnp.ones((2, 2)),
    "blocks": {
        "up": {"kernel": jnp.ones((LAYERS, 2, 4)), "bias": jnp.ones((LAYERS, 4))},
        "position": jnp.ones((LAYERS, 2)),
    },
    "norm": {"scale": jnp.ones(2)},
    "head": {"kernel": jnp.ones((2, 5))},
}


def factors(params, decay, **options):
    """What an SGD update of rate 1 is for a gradient of 1 everywhere, negated."""
    optimizer = layerwise(optim.sgd(1.0), decay, **options)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    return {name: -x for name, x in by_name(updates).items()}


def constant(x):
    assert (x == x.flat[0]).all()
    return float(x.flat[0])


@pytest.mark.slow
@fast
def test_of_three_layers_the_last_has_one_half_the_first_an_eighth_and_embeddings_a_sixteenth():
    got = factors(STACKED, 0.5)
    for name in ("blocks/up/kernel", "blocks/up/bias", "blocks/position"):
        assert [constant(layer) for layer in got[name]] == [0.125, 0.25, 0.5], name
    outside = {name: constant(x) for name, x in got.items() if not name.startswith("blocks/")}
    assert outside == {
        "embed/embedding": 0.0625,
        "position": 0.0625,
        "type": 0.0625,
        "norm/scale": 1.0,
        "head/kernel": 1.0,
    }


@pytest.mark.slow
@fast
def test_what_only_sounds_like_an_embedding_is_not_slowed():
    odd = {
        name: {"kernel": jnp.ones((3, 3))}
        for name in ("prototype", "composition", "embedder_free", "pos_embed")
    }
    got = factors({"blocks": {"w": jnp.ones((2, 3, 3))}, **odd}, 0.5)
    assert {name: constant(got[f"{name}/kernel"]) for name in odd} == {
        **dict.fromkeys(odd, 1.0),
        "pos_embed": 0.125,
    }


def test_the_names_of_blocks_and_of_what_comes_first_may_be_others():
    params = {
        "encoder": {"layers": {"w": jnp.ones((2, 3, 3))}, "norm": jnp.ones(3), "patch": jnp.ones((3, 3))}
    }
    got = factors(params, 0.5, blocks="layers", first="patch|encoder/norm")
    assert [constant(x) for x in got["encoder/layers/w"]] == [0.25, 0.5]
    assert [constant(got[f"encoder/{name}"]) for name in ("norm", "patch")] == [0.125, 0.125]


def test_real_updates_of_a_gpt_are_sgds_times_the_factors():
    """Two layers: the embeddings by a cube, the layers by square and decay, the head by 1."""
    before, plain, _ = run(optim.sgd(0.1), steps=1)
    _, slower, _ = run(layerwise(optim.sgd(0.1), 0.5), steps=1)
    old, plain, slower = (by_name(state.params) for state in (before, plain, slower))
    for name in old:
        factor = np.float32(1.0)
        if name.startswith("blocks/"):
            factor = np.array([0.25, 0.5], np.float32).reshape(2, *(1,) * (old[name].ndim - 1))
        elif name in ("embed/embedding", "position"):
            factor = np.float32(0.125)
        np.testing.assert_allclose(
            slower[name] - old[name], factor * (plain[name] - old[name]), atol=3e-7, err_msg=name
        )


@pytest.mark.slow
@fast
def test_weight_decay_shrinks_with_the_rate():
    optimizer = layerwise(optim.adamw(1.0, weight_decay=0.1), 0.5)
    zero = jax.tree.map(jnp.zeros_like, STACKED)
    updates, _ = optimizer.update(zero, optimizer.init(STACKED), STACKED)
    kernel = updates["blocks"]["up"]["kernel"]
    np.testing.assert_allclose([constant(np.asarray(x)) for x in kernel], [-0.0125, -0.025, -0.05], rtol=1e-6)


@pytest.mark.slow
@fast
def test_a_decay_of_one_changes_nothing():
    assert all(constant(x) == 1.0 for x in factors(STACKED, 1.0).values())


@fast
def test_the_decay_may_be_a_traced_value_and_a_sweep():
    def head_and_first(decay):
        optimizer = layerwise(optim.sgd(1.0), decay)
        updates, _ = optimizer.update(STACKED, optimizer.init(STACKED), STACKED)
        return -updates["head"]["kernel"][0, 0], -updates["blocks"]["up"]["bias"][0, 0]

    heads, firsts = jax.jit(jax.vmap(head_and_first))(jnp.array([0.5, 1.0, 0.1]))
    np.testing.assert_array_equal(heads, np.ones(3))
    np.testing.assert_allclose(firsts, [0.125, 1.0, 0.001], rtol=1e-5)


# Spikes


def norms_seen(optimizer, norms):
    """The state after gradients of these norms, and the updates that were zero."""
    state, skipped = over(optimizer, norms)
    return state, np.flatnonzero(skipped)


def over(optimizer, norms):

    def one(state, norm):
        updates, state = optimizer.update({"w": jnp.array([0.6, 0.8]) * norm}, state, {"w": jnp.zeros(2)})
        return state, (updates["w"] == 0).all()

    return jax.lax.scan(one, optimizer.init({"w": jnp.zeros(2)}), jnp.asarray(norms, jnp.float32))


@pytest.mark.slow
@fast
def test_the_moments_are_the_weighted_ones_of_the_log_norms_from_the_first_on():
    norms = np.exp(np.random.default_rng(0).normal(1.0, 0.3, 40))
    for n in (1, 2, 40):
        state, _ = norms_seen(skip_spikes(optim.sgd(0.1), decay=0.9), norms[:n])
        z, weights = np.log(norms[:n]), 0.9 ** np.arange(n - 1, -1, -1)
        mean = np.average(z, weights=weights)
        np.testing.assert_allclose(state.log_mean, mean, rtol=1e-5)
        variance = np.average((z - mean) ** 2, weights=weights)
        np.testing.assert_allclose(state.log_variance, variance, rtol=1e-4, atol=1e-9)


@pytest.mark.slow
@fast
def test_a_spike_is_skipped_after_the_warmup_alone_and_changes_nothing_but_the_counts():
    norms = np.exp(np.random.default_rng(0).normal(0.0, 0.3, 60))
    norms[[5, 50]] *= 100
    optimizer = skip_spikes(optim.adam(0.1), warmup=20)
    state, skipped = norms_seen(optimizer, norms)
    assert list(skipped) == [50] and int(state.skipped_spikes) == 1
    without, _ = norms_seen(optimizer, np.delete(norms, 50))
    jax.tree.map(
        np.testing.assert_array_equal, state._replace(skipped_spikes=without.skipped_spikes), without
    )


@pytest.mark.slow
@fast
def test_the_threshold_is_sigma_deviations_of_the_log_norm_and_no_less_than_the_floor():
    noisy, even = np.exp(np.tile([-0.5, 0.5], 100)), np.ones(200)
    for norms, deviation in ((noisy, 0.5), (even, FLOOR)):
        for factor, want in ((0.95, []), (1.05, [200])):
            last = np.exp(6 * deviation * factor)
            _, skipped = norms_seen(skip_spikes(optim.sgd(0.1), decay=0.9999), [*norms, last])
            assert list(skipped) == want, (deviation, factor)


@pytest.mark.slow
@fast
def test_no_batch_of_ten_thousand_clean_steps_is_skipped():
    """A two-layer network on noisy targets, batches of 4, from the first steps on; three seeds."""
    optimizer = skip_spikes(optim.adam(0.01))

    def loss(params, key):
        x = jax.random.normal(key, (4, 3))
        y = jnp.sin(x.sum(1)) + 0.5 * jax.random.normal(jax.random.fold_in(key, 1), (4,))
        return ((jnp.tanh(x @ params["up"]) @ params["down"] - y) ** 2).mean()

    @jax.jit
    @jax.vmap
    def skipped(seed):
        key = jax.random.key(seed)
        params = {"up": jax.random.normal(key, (3, 8)), "down": jnp.full((8,), 0.1)}

        def one(carry, n):
            params, state = carry
            grads = jax.grad(loss)(params, jax.random.fold_in(key, n))
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        (_, state), _ = jax.lax.scan(one, (params, optimizer.init(params)), jnp.arange(10_000))
        return state.skipped_spikes, state.log_variance

    counts, variances = skipped(jnp.arange(3))
    assert list(counts) == [0, 0, 0]
    assert (np.sqrt(variances) > 3 * FLOOR).all()  # it is the deviation that keeps them, not the floor


@fast
def test_a_lasting_change_of_level_is_followed_after_most_skips():
    norms = np.exp(np.random.default_rng(0).normal(0.0, 0.3, 400))
    norms[150:] *= 100
    norms[300] *= 100
    state, skipped = norms_seen(skip_spikes(optim.sgd(0.1), most=10), norms)
    assert list(skipped) == [*range(150, 160), 300]
    assert int(state.seen) == 400 - 160 - 1
    np.testing.assert_allclose(state.log_mean, np.log(100), atol=0.15)


@fast
def test_norms_of_zero_and_not_finite_are_no_part_of_the_moments():
    norms = np.exp(np.random.default_rng(0).normal(0.0, 0.3, 30))
    odd = [*norms[:10], 0.0, np.nan, *norms[10:20], np.inf, *norms[20:]]
    (got, _), (want, _) = (norms_seen(skip_spikes(optim.sgd(0.1), warmup=5), x) for x in (odd, norms))
    jax.tree.map(np.testing.assert_array_equal, got._replace(inner=None), want._replace(inner=None))


@fast
def test_sigma_may_be_a_traced_value_and_a_sweep():
    norms = np.exp(np.tile([-0.5, 0.5], 100))

    @jax.jit
    @jax.vmap
    def counts(sigma):
        return over(skip_spikes(optim.sgd(0.1), sigma=sigma), [*norms, np.exp(2.0)])[0].skipped_spikes

    assert list(counts(jnp.array([3.0, 5.0]))) == [1, 0]


@pytest.mark.slow
@fast
def test_an_average_inside_stands_still_at_a_spike_and_one_outside_goes_on_to_the_parameters():
    inside = skip_spikes(optim.with_ema(optim.sgd(0.1), 0.5, warmup=False), warmup=3)
    outside = optim.with_ema(skip_spikes(optim.sgd(0.1), warmup=3), 0.5, warmup=False)
    for optimizer in (inside, outside, only(inside, "w")):
        params = {"w": jnp.zeros(2), "rest": jnp.ones(1)}
        state, averages = optimizer.init(params), []
        for norm in (1.0, 1.1, 0.9, 1.0, 100.0):
            updates, state = optimizer.update({"w": jnp.full(2, norm), "rest": jnp.zeros(1)}, state, params)
            params = optax.apply_updates(params, updates)
            averages.append(optimizer.average(state, params))
        np.testing.assert_allclose(params["w"], -0.4, rtol=1e-6)
        # 0.5 x (-0.1), then half of it and of what the parameters are: -0.05, -0.13, -0.215, -0.3075
        np.testing.assert_allclose(averages[3]["w"], -0.3075, rtol=1e-6)
        np.testing.assert_allclose(averages[4]["w"], -0.35375 if optimizer is outside else -0.3075, rtol=1e-6)
        np.testing.assert_array_equal(averages[4]["rest"], np.ones(1))


@pytest.mark.slow
@fast
def test_a_skipped_batch_leaves_the_statistics_of_activations():
    def measure(params, extra, batch, keys_B):
        error = batch["x"] * params["w"] - 1.0
        seen = 0.9 * extra["seen"] + 0.1 * batch["x"].mean()
        return Mean(jnp.sum(error**2), jnp.float32(4)), {"seen": seen}, {}

    task = Task(lambda key, batch: ({"w": jnp.zeros(())}, {"seen": jnp.zeros(())}), measure, lambda *_: {})
    optimizer = skip_spikes(optim.sgd(0.01), warmup=3)
    state, step = init(task, optimizer, 0, {"x": jnp.ones(4)}), jax.jit(make_step(task, optimizer))
    for _ in range(4):
        state, _ = step(state, {"x": jnp.ones(4)})
    after, metrics = step(state, {"x": jnp.full(4, 100.0)})
    assert value(metrics["skipped_spikes"]) == 1 and int(after.step) == 5
    np.testing.assert_array_equal(after.extra["seen"], state.extra["seen"])
    np.testing.assert_array_equal(after.params["w"], state.params["w"])
    assert step(after, {"x": jnp.ones(4)})[0].extra["seen"] > state.extra["seen"]


# Errors


@fast
@pytest.mark.parametrize("name", ["warmup", "most"])
def test_a_warmup_or_a_bound_of_zero_is_an_error(name):
    with pytest.raises(ValueError, match=f"skip_spikes: got {name}=0; expected 1 or more. Raise it"):
        skip_spikes(optim.sgd(0.1), **{name: 0})


@pytest.mark.slow
@fast
@pytest.mark.parametrize("make", [only, frozen])
def test_an_expression_that_finds_nothing_is_an_error_that_shows_paths(make):
    with pytest.raises(ValueError, match=r"'haed', which matches no parameter; expected .*blocks/up/bias"):
        make(optim.sgd(0.1), "haed").init(STACKED)


@fast
def test_freezing_everything_is_an_error():
    with pytest.raises(ValueError, match="matches every parameter; expected some left to train"):
        frozen(optim.sgd(0.1), "").init(STACKED)


@fast
def test_layers_that_are_not_there_are_an_error_that_shows_paths():
    with pytest.raises(
        ValueError, match=r"blocks='layers', which is part of no path; expected .*blocks/up/bias"
    ):
        layerwise(optim.sgd(0.1), 0.5, blocks="layers").init(STACKED)


@pytest.mark.slow
@fast
def test_stacks_of_different_depth_are_an_error():
    params = {"encoder": {"blocks": {"w": jnp.ones((2, 3))}}, "decoder": {"blocks": {"w": jnp.ones((3, 3))}}}
    with pytest.raises(
        ValueError,
        match="2 layers in encoder/blocks/w and 3 in decoder/blocks/w; expected the same first axis",
    ):
        layerwise(optim.sgd(0.1), 0.5).init(params)
