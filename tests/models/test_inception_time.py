"""InceptionTime: the published count of parameters, and what it reads."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.datasets.ucr import CLASSES, STEPS, TRAIN_ROWS, ucr
from jaxmodels.models.inception_time import InceptionTime, inception_time


def test_the_published_network_has_the_hand_count_of_parameters():
    shapes = jax.eval_shape(inception_time(classes=2).init, jax.random.key(0), jnp.zeros((1, 150, 1)))
    wide = 4 * 32
    first = 32 * (40 + 20 + 10) + 32
    other = wide * 32 + 32 * 32 * (40 + 20 + 10) + wide * 32
    shortcuts = 1 * wide + wide * wide + 2 * 2 * wide
    want = first + 5 * other + 6 * 2 * wide + shortcuts + wide * 2 + 2
    assert sum(x.size for x in jax.tree.leaves(shapes["params"])) == want


def test_a_module_is_convolutions_of_all_lengths_and_a_maximum_side_by_side():
    x = np.random.default_rng(0).normal(size=(1, 9, 1)).astype(np.float32)
    model = InceptionTime(2, depth=1, width=1, kernels=(3, 2))
    variables = model.init(jax.random.key(0), x)
    p = variables["params"]
    padded = np.pad(x[0, :, 0], 1)
    three = np.array([padded[t : t + 3] @ p["conv_0_3"]["kernel"][:, 0, 0] for t in range(9)])
    two = np.array([padded[t + 1 : t + 3] @ p["conv_0_2"]["kernel"][:, 0, 0] for t in range(9)])
    high = np.pad(x[0, :, 0], 1, constant_values=-np.inf)
    most = np.array([high[t : t + 3].max() * p["pool_0"]["kernel"][0, 0, 0] for t in range(9)])
    features = np.maximum(np.stack([three, two, most], 1) / np.sqrt(1 + 1e-3), 0).mean(0)
    want = features @ p["head"]["kernel"] + p["head"]["bias"]
    np.testing.assert_allclose(model.apply(variables, x)[0], want, rtol=1e-4, atol=1e-5)


def test_series_without_channels_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 9\); expected \(batch, steps, channels\)"):
        InceptionTime(2).init(jax.random.key(0), jnp.zeros((2, 9)))


def test_the_archives_problems_are_whole_and_standardised(real):
    folder, test_rows = real("ucr"), {"GunPoint": 150, "ArrowHead": 175, "ItalyPowerDemand": 1029}
    for problem, classes in CLASSES.items():
        for split, rows in (("train", TRAIN_ROWS), ("test", test_rows)):
            data = ucr(problem, split, 8, folder=folder)
            assert data.arrays["series"].shape == (rows[problem], STEPS[problem], 1)
            assert set(data.arrays["label"].tolist()) == {*range(len(classes))}
            np.testing.assert_allclose(data.arrays["series"].mean(1), 0, atol=1e-4)
