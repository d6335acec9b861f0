"""CTC: the loss and both searches against sums over all paths. K classes, T frames, N tokens, W beams."""

from __future__ import annotations

import itertools
from collections import defaultdict

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.interfaces import Predictor
from jaxmodels.models.conformer import Frames
from jaxmodels.task import value
from jaxmodels.tasks.ctc import Search, ctc, needed, texts, transcriber
from jaxmodels.tasks.ctc_decoding import greedy, prefix_beam

RANDOM = np.random.default_rng(0)


def collapsed(path):
    return tuple(k for k, _ in itertools.groupby(path) if k)


def all_texts(log_TK):
    """The probability of every text, by all K^T paths."""
    found = defaultdict(float)
    T, K = log_TK.shape
    for path in itertools.product(range(K), repeat=T):
        found[collapsed(path)] += float(np.exp(sum(log_TK[t, k] for t, k in enumerate(path))))
    return found


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


LOGITS = RANDOM.normal(size=(12, 5, 3)) * np.linspace(0.5, 3, 12)[:, None, None]
REAL = (np.arange(5) < RANDOM.integers(2, 6, 12)[:, None]).astype(np.int32)
TRUTH = [all_texts(log_softmax(x[: n.sum()])) for x, n in zip(LOGITS, REAL, strict=True)]


class Given(nn.Module):
    """A model whose frames are its input, times one parameter."""

    def __call__(self, x_BTK, keys_B=None, segments_BT=None):
        scale = self.param("scale", nn.initializers.ones, ())
        return Frames(x_BTK * scale, segments_BT)

    __call__ = nn.compact(__call__)


def batch(labels, logits=LOGITS, real=REAL, weight=None):
    return {
        "audio": np.asarray(logits, np.float32),
        "segments": real,
        "labels": np.asarray(labels, np.int32),
        "weight": np.ones(len(logits), np.float32) if weight is None else np.asarray(weight, np.float32),
    }


TASK = ctc(Given())
PARAMS = {"scale": jnp.ones(())}
EVALUATE = jax.jit(TASK.evaluate)


@pytest.mark.parametrize("text", [(), (1,), (2, 1), (1, 1), (1, 2, 1)])
def test_the_loss_is_the_logarithm_of_the_sum_over_all_paths(text):
    labels = np.tile([*text, *[0] * (4 - len(text))], (12, 1))
    got = EVALUATE(PARAMS, {}, batch(labels))
    possible = [truth[text] > 0 for truth in TRUTH]
    want = [-np.log(truth[text]) for truth, ok in zip(TRUTH, possible, strict=True) if ok]
    np.testing.assert_allclose(value(got["loss"]), np.mean(want), rtol=1e-5)
    assert float(got["loss"].weight) == sum(possible)
    np.testing.assert_allclose(value(got["impossible"]), 1 - np.mean(possible), atol=1e-6)


def test_a_text_that_no_path_can_say_is_counted_and_changes_no_gradient():
    real = np.tile([1, 1, 1, 0, 0], (2, 1)).astype(np.int32)
    labels = [[1, 2, 0], [1, 1, 2]]  # the second needs four frames
    assert needed(jnp.asarray([[1, 2, 0], [1, 1, 2], [0, 0, 0], [2, 2, 2]])).tolist() == [2, 4, 0, 5]
    whole = batch(labels, LOGITS[:2], real)
    keys = jax.random.split(jax.random.key(0), 2)
    gradient = jax.jit(jax.grad(lambda p, b: TASK.loss(p, {}, b, keys)[0].total))
    alone = {**whole, "weight": np.array([1, 0], np.float32)}
    np.testing.assert_allclose(gradient(PARAMS, whole)["scale"], gradient(PARAMS, alone)["scale"], rtol=1e-6)
    metrics = TASK.evaluate(PARAMS, {}, whole)
    assert float(metrics["impossible"].total) == 1 and float(metrics["loss"].weight) == 1


def test_greedy_decoding_merges_repetitions_and_drops_blanks():
    paths = np.array([[0, 1, 1, 0, 1], [2, 2, 1, 1, 0], [0, 0, 0, 0, 0], [1, 2, 1, 2, 1]])
    said = jax.jit(greedy)(9.0 * np.eye(3)[paths], np.ones((4, 5), np.int32))
    assert said.tokens.tolist() == [[1, 1, 0, 0, 0], [2, 1, 0, 0, 0], [0] * 5, [1, 2, 1, 2, 1]]
    assert said.length.tolist() == [2, 2, 0, 5]
    short = greedy(9.0 * np.eye(3)[paths], np.array([[1, 1, 0, 0, 0]] * 4))
    assert short.length.tolist() == [1, 1, 0, 2]


def test_a_wide_beam_finds_every_text_with_its_probability():
    said = jax.jit(lambda x, real: prefix_beam(x, real, width=64, tokens=5))(LOGITS, REAL)
    for row, truth in enumerate(TRUTH):
        found = {}
        for tokens, count, score in zip(said.tokens[row], said.length[row], said.score[row], strict=True):
            if score > -1e29:
                assert tuple(tokens[:count].tolist()) not in found and not tokens[count:].any()
                found[tuple(tokens[:count].tolist())] = float(np.exp(score))
        assert found.keys() == {text for text, p in truth.items() if p > 0}
        for text, probability in found.items():
            np.testing.assert_allclose(probability, truth[text], rtol=1e-4)
        scores = said.score[row]
        assert (np.diff(scores) <= 0).all() and found[max(truth, key=truth.get)] == max(found.values())


def test_a_narrow_beam_finds_the_best_text_where_the_best_path_does_not():
    logits = np.log(
        [[[0.4, 0.6 - 1e-9, 1e-9], [0.55, 0.45 - 1e-9, 1e-9]]]
    )  # "1" has 0.78, its best path 0.33
    real = np.ones((1, 2), np.int32)
    logits[0, 0] = np.log([0.6, 0.4 - 1e-9, 1e-9])
    assert greedy(logits, real).length.tolist() == [0]
    best = prefix_beam(logits, real, width=2, tokens=3)
    assert best.tokens[0, 0].tolist() == [1, 0, 0]
    np.testing.assert_allclose(np.exp(best.score[0, 0]), 1 - 0.6 * 0.55, rtol=1e-4)


def test_no_text_is_longer_than_asked_and_senseless_widths_are_refused():
    said = prefix_beam(LOGITS, REAL, width=8, tokens=2)
    assert said.tokens.shape == (12, 8, 2) and said.length.max() <= 2
    with pytest.raises(ValueError, match="got width=0, tokens=2; expected at least 1"):
        prefix_beam(LOGITS, REAL, width=0, tokens=2)


@pytest.mark.parametrize("width", [0, 32])
def test_a_transcriber_gives_words(width):
    predictor = transcriber(Given(), ["on", "off"], read=dict, search=Search(width, 5))
    assert isinstance(predictor, Predictor) and predictor.input == "sound"
    paths = np.array([[0, 1, 1, 0, 1], [2, 2, 1, 1, 0], [0, 0, 0, 0, 0]])
    inputs = {"audio": np.float32(9.0 * np.eye(3)[paths]), "segments": np.ones((3, 5), np.int32)}
    found = predictor.predict(PARAMS, {}, inputs)
    rows = [jax.tree.map(lambda x, n=n: np.asarray(x[n]), found) for n in range(3)]
    assert [predictor.report(row)["text"] for row in rows] == ["on on", "off on", ""]
    assert predictor.settings()["words"] == ["on", "off"]


def test_exactness_counts_whole_texts():
    paths = np.array([[0, 1, 1, 0, 1], [2, 2, 1, 1, 0]])
    both = batch([[1, 1, 0], [2, 2, 0]], 9.0 * np.eye(3)[paths], np.ones((2, 5), np.int32))
    assert value(TASK.evaluate(PARAMS, {}, both)["exact"]) == 0.5
    found = texts(Given())(PARAMS, {}, both)
    assert found.length.tolist() == [2, 2]


@pytest.mark.parametrize("labels", [[[1, 0, 2]], [[3, 0, 0]], [[-1, 0, 0]]])
def test_labels_with_a_blank_inside_or_beyond_the_classes_are_refused(labels):
    from jaxmodels.training.check_batches import check_read

    one = batch(labels, LOGITS[:1], REAL[:1])
    with pytest.raises(ValueError, match="labels from 1 to 2, and zeros behind the last"):
        check(TASK, one)
    check(TASK, batch([[1, 2, 0]], LOGITS[:1], REAL[:1]))
    assert check_read


def check(task, one):
    requirements = task.requires(one, PARAMS, {})
    requirement = requirements["labels"]
    label = one["labels"]
    assert requirement.wrong is not None
    if ((label < requirement.low) | (label > requirement.high) | requirement.wrong(one)).any():
        raise ValueError(requirement.what)
