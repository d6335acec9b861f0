"""Dimensions: B rows of a batch, H W image."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from jaxmodels.data.mixup import Mixed
from jaxmodels.data.pipeline import ArrayPipeline

pytestmark = pytest.mark.fast

N, B = 50, 7  # an odd batch


def data(batch=B, seed=3, **options):
    """Images each of one value, which is also its label."""
    value = np.arange(N)
    image = np.broadcast_to(value[:, None, None, None], (N, 8, 6, 1)).astype(np.float32)
    return ArrayPipeline({"image": image, "label": value.astype(np.int32)}, batch=batch, seed=seed, **options)


@pytest.mark.parametrize("options", [{}, {"mixup": 0.0}, {"cutmix": 0.0}, {"probability": 0.5}], ids=str)
def test_rows_do_not_depend_on_how_a_batch_is_divided(options):
    mixed = Mixed(data(), **options)
    whole = mixed.rows(3, 0, B)
    assert {name: (x.shape[1:], x.dtype) for name, x in whole.items()} == dict(mixed.spec)
    for cuts in ((0, 1, 2, 7), (0, 3, 5, 6, 7), (0, 4, 7)):
        parts = [mixed.rows(3, a, b) for a, b in pairwise(cuts)]
        for name, x in whole.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), x)


@pytest.mark.parametrize("options", [{"mixup": 0.0}, {"cutmix": 0.0}, {}], ids=["cutmix", "mixup", "both"])
def test_the_mean_of_each_image_is_the_mean_of_both_by_the_share(options):
    for step in range(5):
        batch = Mixed(data(), **options).rows(step, 0, B)
        want = batch["share"] * batch["label"] + (1 - batch["share"]) * batch["other"]
        np.testing.assert_allclose(batch["image"].mean((1, 2, 3)), want, rtol=1e-5)


def test_neighbours_have_each_others_label_and_the_last_of_an_odd_batch_its_own():
    batch, plain = Mixed(data()).rows(0, 0, B), data().rows(0, 0, B)
    np.testing.assert_array_equal(batch["label"], plain["label"])
    np.testing.assert_array_equal(batch["other"], plain["label"][[1, 0, 3, 2, 5, 4, 6]])
    np.testing.assert_array_equal(batch["image"][6], plain["image"][6])


def test_cutmix_takes_whole_pixels_of_either_and_mixup_of_both():
    cut, mixed = Mixed(data(), mixup=0.0).rows(0, 0, B), Mixed(data(), cutmix=0.0).rows(0, 0, B)
    for i in range(B):
        assert set(np.unique(cut["image"][i])) <= {float(cut["label"][i]), float(cut["other"][i])}
        assert len(np.unique(mixed["image"][i])) == 1


@pytest.mark.parametrize("a", [0.2, 1.0, 4.0])
def test_shares_are_distributed_as_beta(a):
    """Its mean is one half and its variance 1 / (4 (2a + 1))."""
    mixed = Mixed(data(batch=20), mixup=a, cutmix=0.0)
    share = np.concatenate([mixed.rows(step, 0, 20)["share"][::2] for step in range(300)])
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * (2 * a + 1)), rel=0.1)


def test_padding_is_mixed_with_nothing():
    mixed = Mixed(data(batch=8, seed=None, remainder="pad"))
    last = mixed.rows(6, 0, 8)  # 50 = 6 x 8 + 2
    assert (last["share"][2:] == 1).all() and last["weight"].sum() == 2
    other = mixed.rows(6, 0, 8)["image"][2:]
    np.testing.assert_array_equal(other, data(batch=8, seed=None, remainder="pad").rows(6, 2, 8)["image"])


def test_with_probability_zero_nothing_is_mixed():
    batch = Mixed(data(), probability=0.0).rows(0, 0, B)
    np.testing.assert_array_equal(batch["image"], data().rows(0, 0, B)["image"])
    assert (batch["share"] == 1).all()


@pytest.mark.parametrize(
    "options", [{"mixup": -1.0}, {"mixup": 0.0, "cutmix": 0.0}, {"probability": 2.0}], ids=str
)
def test_parameters_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=r"Mixed: got .*; expected parameters of at least 0"):
        Mixed(data(), **options)
