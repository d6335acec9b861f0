"""Dimensions: B batch, K classes."""

from __future__ import annotations

import flax.linen as nn
import jax
import numpy as np
import pytest

from jaxmodels.models.cnn import CNN
from jaxmodels.task import value
from jaxmodels.tasks.classify import classify, predictor, probabilities

pytestmark = pytest.mark.fast

LOGITS = np.array([[2.0, 0.5, -1.0], [0.0, 0.0, 0.0], [-3.0, 1.0, 4.0], [9.0, 9.0, 9.0]], np.float32)
BATCH = {
    "image": LOGITS,
    "label": np.array([0, 1, 0, 2], np.int32),
    "weight": np.array([1, 0.5, 1, 0], np.float32),
}


class Times(nn.Module):
    """The input as the logits, times a parameter that starts at one."""

    @nn.compact
    def __call__(self, x, keys_B=None):
        return x * self.param("one", nn.initializers.ones, ())


PARAMS = {"one": np.float32(1)}


def cross_entropy(smoothing=0.0):
    p_BK = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    label_BK = (1 - smoothing) * np.eye(3)[BATCH["label"]] + smoothing / 3
    return -(label_BK * np.log(p_BK)).sum(-1)


def train(task, batch=BATCH):
    return jax.jit(task.loss)(PARAMS, {}, batch, jax.random.split(jax.random.key(1), len(batch["weight"])))


def evaluate(task, batch=BATCH):
    return jax.jit(task.evaluate)(PARAMS, {}, batch)


@pytest.mark.slow
def test_the_loss_is_the_weighted_cross_entropy():
    want = (cross_entropy() * BATCH["weight"]).sum() / 2.5
    loss, _, metrics = train(classify(Times()))
    assert value(loss) == value(metrics["loss"]) == pytest.approx(want, rel=1e-5)
    assert float(loss.weight) == 2.5
    assert value(evaluate(classify(Times()))["loss"]) == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_accuracy_counts_by_weight():
    """Right, a tie that goes to the first class and so wrong, wrong, padding."""
    assert value(evaluate(classify(Times()))["accuracy"]) == pytest.approx(1 / 2.5)


@pytest.mark.slow
def test_smoothing_moves_a_share_of_the_label_to_all_classes_in_training_alone():
    task = classify(Times(), smoothing=0.3)
    assert value(train(task)[0]) == pytest.approx(
        (cross_entropy(0.3) * BATCH["weight"]).sum() / 2.5, rel=1e-5
    )
    assert value(evaluate(task)["loss"]) == pytest.approx(
        (cross_entropy() * BATCH["weight"]).sum() / 2.5, rel=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("label", [-1, 99])
def test_the_label_of_padding_may_be_anything(label):
    batch = {**BATCH, "label": np.array([0, 1, 0, label], np.int32)}
    assert evaluate(classify(Times()), batch) == evaluate(classify(Times()))
    task = classify(Times())
    keys_B = jax.random.split(jax.random.key(1), 4)
    gradient = jax.jit(jax.grad(lambda p, batch: task.loss(p, {}, batch, keys_B)[0].total))
    assert gradient(PARAMS, batch) == gradient(PARAMS, BATCH)


def test_the_inputs_may_have_another_name():
    batch = {"features": LOGITS, "label": BATCH["label"], "weight": BATCH["weight"]}
    assert evaluate(classify(Times(), inputs="features"), batch) == evaluate(classify(Times()))


class Pool(nn.Module):
    """The mean over the positions of segment 1, times a parameter."""

    @nn.compact
    def __call__(self, x_BTK, keys_B=None, segments_BT=None):
        real_BT1 = (segments_BT == 1)[..., None]
        return (x_BTK * real_BT1).sum(1) / real_BT1.sum(1) * self.param("one", nn.initializers.ones, ())


@pytest.mark.slow
def test_the_model_gets_the_segments_of_the_batch():
    """The second of two positions is padding, and so without effect."""
    inputs = np.stack([LOGITS, np.full_like(LOGITS, 7)], 1)
    batch = {**BATCH, "image": inputs, "segments": np.tile(np.array([[1, 0]], np.int32), (4, 1))}
    assert evaluate(classify(Pool()), batch) == evaluate(classify(Times()))
    assert value(train(classify(Pool()), batch)[0]) == value(train(classify(Times()))[0])


@pytest.mark.slow
def test_training_changes_the_statistics_that_evaluation_uses():
    task = classify(CNN(3, channels=(2,), hidden=0, batch_norm=True))
    image = np.random.default_rng(0).normal(size=(4, 2, 2, 1)).astype(np.float32)
    batch = {**BATCH, "image": image}
    params, extra = jax.jit(task.init)(jax.random.key(0), batch)
    _, changed, _ = jax.jit(task.loss)(params, extra, batch, jax.random.split(jax.random.key(1), 4))
    assert not np.array_equal(
        changed["batch_stats"]["norm_0"]["mean"], extra["batch_stats"]["norm_0"]["mean"]
    )
    evaluated = jax.jit(task.evaluate)
    assert value(evaluated(params, changed, batch)["loss"]) != value(evaluated(params, extra, batch)["loss"])


def test_finish_adds_nothing():
    assert classify(Times()).finish({"loss": 0.5, "accuracy": 0.9}) == {"loss": 0.5, "accuracy": 0.9}


# Mixed and weighted examples, top five, auxiliary heads


def test_a_mixed_label_is_the_weighted_mean_of_the_losses_of_both():
    share = np.array([1, 0.25, 0.5, 0.3], np.float32)
    other = np.array([2, 2, 1, 0], np.int32)
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))
    rows = np.arange(4)
    want_B = -(share * log_p[rows, BATCH["label"]] + (1 - share) * log_p[rows, other])
    loss, _, _ = train(classify(Times()), {**BATCH, "share": share, "other": other})
    assert value(loss) == pytest.approx((want_B * BATCH["weight"]).sum() / 2.5, rel=1e-5)


def test_class_weights_weigh_the_loss_and_its_mean_but_not_the_accuracy():
    of_class = np.array([1, 5, 3], np.float32)
    weight_B = BATCH["weight"] * of_class[BATCH["label"]]
    task = classify(Times(), class_weights=tuple(of_class))
    loss, _, metrics = train(task)
    assert float(loss.weight) == weight_B.sum()
    assert value(loss) == pytest.approx((cross_entropy() * weight_B).sum() / weight_B.sum(), rel=1e-5)
    assert metrics["accuracy"] == evaluate(classify(Times()))["accuracy"]


def test_there_must_be_a_weight_for_each_class():
    with pytest.raises(
        ValueError, match=r"got 2 class weights for 3 classes; expected one for each class. Give as many"
    ):
        train(classify(Times(), class_weights=(1, 2)))


def test_top_five_counts_where_fewer_than_five_classes_are_likelier():
    logits = np.arange(7, dtype=np.float32)[::-1]
    batch = {
        "image": np.stack([logits] * 4),
        "label": np.array([0, 4, 5, 6], np.int32),
        "weight": np.array([1, 1, 1, 0], np.float32),
    }
    assert value(evaluate(classify(Times()), batch)["top5"]) == pytest.approx(2 / 3)
    assert "top5" not in evaluate(classify(Times()))


def test_an_example_is_told_by_its_probabilities_its_label_and_its_input():
    seen = classify(Times()).examine(PARAMS, {}, BATCH)
    np.testing.assert_allclose(
        seen["probability"], np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True), rtol=1e-5
    )
    np.testing.assert_array_equal(seen["label"], BATCH["label"])
    np.testing.assert_array_equal(seen["input"], BATCH["image"])


class TwoHeads(Times):
    """Logits, and twice the logits by an auxiliary head."""

    def with_auxiliary(self, x, keys_B=None):
        y = self(x, keys_B)
        return y, (2 * y,)


@pytest.mark.slow
def test_an_auxiliary_head_adds_its_share_of_loss_while_training_alone():
    task = classify(TwoHeads(), auxiliary=0.3)
    own, auxiliary = train(classify(Times()))[0], train(classify(Times()), {**BATCH, "image": 2 * LOGITS})[0]
    loss, _, metrics = train(task)
    assert value(loss) == pytest.approx(value(own) + 0.3 * value(auxiliary), rel=1e-5)
    assert metrics["loss"] == own
    assert evaluate(task) == evaluate(classify(Times()))


def test_a_predictor_reports_the_likeliest_classes_and_draws_the_first(tmp_path):
    captions = []

    def caption(path, text):
        captions.append((path, text))
        return np.zeros((2, 2, 3), np.uint8)

    reads = predictor(Times(), ["cat", "dog", "cow"], read=lambda path: {"image": LOGITS[2]}, caption=caption)
    got = np.asarray(reads.predict(PARAMS, {}, {"image": LOGITS[2:3]}))[0]
    np.testing.assert_allclose(got, np.exp(LOGITS[2]) / np.exp(LOGITS[2]).sum(), rtol=1e-5)
    said = reads.report(got)
    assert (said["class"], said["probability"]) == ("cow", 0.9517)
    assert list(said["likeliest"]) == ["cow", "dog", "cat"]
    reads.draw("a.png", got)
    assert captions == [("a.png", "cow 95.2%")]


# What chance decides, and what counts nowhere


def test_twenty_equal_logits_give_a_top_five_of_a_quarter():
    batch = {
        "image": np.zeros((20, 20), np.float32),
        "label": np.arange(20),
        "weight": np.ones(20, np.float32),
    }
    assert value(evaluate(classify(Times()), batch)["top5"]) == pytest.approx(0.25)


def test_top_five_is_the_mean_over_all_orders_of_equal_logits():
    logits = np.array([[3, 2, 2, 2, 2, 2, 1], [1, 1, 0, 0, 0, 0, 0]], np.float32)
    batch = {"image": logits, "label": np.array([4, 6]), "weight": np.ones(2, np.float32)}
    counted = []
    for row, label in zip(logits, batch["label"], strict=True):
        random = np.random.default_rng(0)
        orders = [np.lexsort((random.random(7), -row))[:5] for _ in range(4_000)]
        counted.append(np.mean([label in order for order in orders]))
    assert counted == pytest.approx([4 / 5, 3 / 5], abs=0.03)
    assert value(evaluate(classify(Times()), batch)["top5"]) == pytest.approx((4 / 5 + 3 / 5) / 2)


@pytest.mark.parametrize("where", [0, 3])
def test_nan_is_never_right(where):
    logits = np.zeros((7, 7), np.float32)
    logits[:, where] = np.nan
    batch = {"image": logits, "label": np.arange(7), "weight": np.ones(7, np.float32)}
    metrics = evaluate(classify(Times()), batch)
    assert value(metrics["accuracy"]) == value(metrics["top5"]) == 0


def test_probabilities_see_the_segments_that_the_loss_sees():
    inputs = np.stack([LOGITS, np.full_like(LOGITS, 7)], 1)
    batch = {**BATCH, "image": inputs, "segments": np.tile(np.array([[1, 0]], np.int32), (4, 1))}
    want = np.exp(LOGITS) / np.exp(LOGITS).sum(-1, keepdims=True)
    np.testing.assert_allclose(jax.jit(probabilities(Pool()))(PARAMS, {}, batch), want, rtol=1e-6)


def test_a_predictor_sees_the_segments_that_the_loss_sees():
    example = {
        "image": np.array([[0.0, 1, 2], [9, 0, 0]], np.float32),
        "segments": np.array([1, 0], np.int32),
    }
    made = predictor(Pool(), ("a", "b", "c"), read=lambda path: example, caption=lambda path, text: text)
    (probability_K,) = made.predict(PARAMS, {}, {name: x[None] for name, x in made.read("x.txt").items()})
    assert made.report(np.asarray(probability_K))["class"] == "c"
