"""A step of two sides: each moves by its own loss, in turn. Dimensions: B batch."""

from __future__ import annotations

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels import Experiment, optim, train
from jaxmodels.alternating import alternating, optimizers
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.gan import Discriminator, Generator
from jaxmodels.optim import skip_spikes
from jaxmodels.parallel import rules
from jaxmodels.parallel.compile import PMAP_AXIS, compile_step
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import put_batch
from jaxmodels.step import init
from jaxmodels.task import Mean, Task
from jaxmodels.tasks.gan import gan, sample

B = 8
BATCH = {"x": np.arange(B, dtype=np.float32), "weight": np.array([1, 1, 1, 1, 1, 1, 1, 0], np.float32)}


def loss_of(sign):
    """sign x (d - g x)^2, by either side."""

    def loss(params, extra, batch, keys_B):
        miss = (params["d"]["w"] - params["g"]["w"] * batch["x"]) ** 2
        return Mean.of(sign * miss, batch["weight"]), extra, {}

    return loss


TASK = Task(
    lambda key, batch: ({"d": {"w": jnp.float32(1)}, "g": {"w": jnp.float32(0.5)}}, {}), loss_of(1), None
)
STEP = alternating({"d": loss_of(1), "g": loss_of(-1)})


def sides(rate=0.01):
    return optimizers(d=optim.sgd(rate), g=optim.sgd(rate))


def by_hand(d, g, rate=0.01, steps=3):
    x = BATCH["x"][:7].astype(np.float64)
    for _ in range(steps):
        d -= rate * (2 * (d - g * x)).mean()
        g -= rate * (2 * x * (d - g * x)).mean()  # of minus the loss, with the new d
    return d, g


def test_each_side_moves_by_its_own_loss_and_the_second_sees_the_first_moved():
    state = jax.jit(lambda: init(TASK, sides(), 0, BATCH))()
    step = jax.jit(STEP(TASK, sides()))
    for _ in range(3):
        state, metrics = step(state, BATCH)
    d, g = by_hand(1.0, 0.5)
    assert float(state.params["d"]["w"]) == pytest.approx(d, rel=1e-5)
    assert float(state.params["g"]["w"]) == pytest.approx(g, rel=1e-5)
    assert int(state.step) == 3 and float(metrics["loss"].weight) == 7


@pytest.mark.parametrize("mode", ["jit", "pmap"])
def test_two_devices_equal_one(mode):
    mesh = make_mesh("data=2")
    state = jax.jit(lambda: init(TASK, sides(), 0, BATCH))()
    want, _ = jax.jit(STEP(TASK, sides()))(state, BATCH)
    shardings = rules.state_shardings(state, mesh)
    step = STEP(TASK, sides(), axis=PMAP_AXIS if mode == "pmap" else None)
    run = compile_step(lambda s, _, b: step(s, b), mode, mesh, shardings, leading=0, donate=False)
    moving = put_batch(lambda start, stop: {name: x[start:stop] for name, x in BATCH.items()}, B, mesh)
    got, _ = run(jax.device_put(state, shardings), {}, moving)
    chex.assert_trees_all_close(jax.device_get(got.params), jax.device_get(want.params), rtol=1e-5)


def test_a_spike_of_one_side_is_skipped_by_it_alone_and_leaves_the_statistics():
    def counted(sign):
        def loss(params, extra, batch, keys_B):
            mean, _, _ = loss_of(sign)(params, extra, batch, keys_B)
            return mean, {"seen": extra["seen"] + batch["x"].mean()}, {}

        return loss

    task = Task(lambda key, batch: (TASK.init(key, batch)[0], {"seen": jnp.zeros(())}), counted(1), None)
    both = optimizers(d=skip_spikes(optim.sgd(1e-4), warmup=3), g=optim.sgd(1e-9))
    step = jax.jit(alternating({"d": counted(1), "g": counted(-1)})(task, both))
    state = jax.jit(lambda: init(task, both, 0, BATCH))()
    for _ in range(4):
        state, _ = step(state, BATCH)
    after, metrics = step(state, {**BATCH, "x": 100 * BATCH["x"]})
    assert float(metrics["skipped_spikes"].total) == 1 and int(after.step) == 5
    assert float(after.params["d"]["w"]) == float(state.params["d"]["w"])
    assert float(after.params["g"]["w"]) != float(state.params["g"]["w"])
    assert float(after.extra["seen"]) == float(state.extra["seen"]) > 0


@pytest.mark.fast
@pytest.mark.parametrize(("on_nan", "count"), [("stop", 0), ("skip", 1)])
def test_a_batch_that_is_not_finite_moves_neither_side(on_nan, count):
    state = jax.jit(lambda: init(TASK, sides(), 0, BATCH))()
    bad = {**BATCH, "x": np.where(np.arange(B) == 2, np.nan, BATCH["x"]).astype(np.float32)}
    got, _ = jax.jit(STEP(TASK, sides(), on_nan=on_nan))(state, bad)
    chex.assert_trees_all_equal(got.params, state.params)
    assert (int(got.faults), int(got.step)) == (1, count)


@pytest.mark.fast
def test_micro_batches_and_missing_optimizers_are_refused():
    with pytest.raises(
        ValueError, match=r"--accumulate: got 2; expected 1, as sides that update in turn see the whole batch"
    ):
        STEP(TASK, sides(), accumulate=2)
    with pytest.raises(ValueError, match=r"optimizers: got d; expected one for each of d, g. Name those"):
        init(TASK, optimizers(d=optim.sgd(0.1)), 0, BATCH)


def two_shades(n: int) -> dict[str, np.ndarray]:
    """Images of one grey each, around 0.8."""
    grey = np.random.default_rng(0).normal(0.8, 0.03, (n, 1, 1, 1))
    return {"image": np.broadcast_to(grey, (n, 8, 8, 1)).astype(np.float32)}


def test_a_small_gan_learns_the_shade_of_its_images_and_resumes_exactly(tmp_path):
    generator = Generator((8, 8, 1), code=4, channels=(8, 8))
    both = gan(generator, Discriminator((8, 8)), penalty=0.1)

    def experiment(steps):
        return Experiment(
            task=both.task,
            optimizer=optimizers(discriminator=optim.adam(2e-3, b1=0.5), generator=optim.adam(2e-3, b1=0.5)),
            make_step=alternating(both.losses),
            train=ArrayPipeline(two_shades(256), batch=32, seed=0),
            steps=steps,
            checkpoint_every=100,
        )

    whole = train(experiment(200), mesh="data=1")
    draw = jax.jit(sample(generator))
    made = draw(whole.state.params, {}, {"index": np.arange(64, dtype=np.int32)})
    assert made.mean() == pytest.approx(0.8, abs=0.1)
    folder = str(tmp_path / "run")
    train(experiment(100), mesh="data=1", folder=folder)
    again = train(experiment(200), mesh="data=1", folder=folder, force=True)
    chex.assert_trees_all_equal(jax.device_get(again.state.params), jax.device_get(whole.state.params))


def test_the_penalty_is_half_the_squared_gradient_at_real_images():
    generator, discriminator = Generator((8, 8, 1), code=4, channels=(8, 8)), Discriminator((4, 4))
    batch = {
        "image": np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32),
        "weight": np.ones(3, np.float32),
    }
    keys_B = jax.random.split(jax.random.key(0), 3)
    none, some = gan(generator, discriminator, penalty=0.0), gan(generator, discriminator, penalty=6.0)
    params, _ = jax.jit(none.task.init)(jax.random.key(0), batch)

    def logit(image_HWC):
        return discriminator.apply({"params": params["discriminator"]}, image_HWC[None])[0]

    squared = [float((jax.jit(jax.grad(logit))(x) ** 2).sum()) for x in batch["image"]]
    totals = [
        float(jax.jit(g.losses["discriminator"])(params, {}, batch, keys_B)[0].total) for g in (none, some)
    ]
    assert totals[1] - totals[0] == pytest.approx(3 * sum(squared), rel=1e-4)
