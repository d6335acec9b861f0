"""Mean and standard deviation in one argument, the same for every kind of image data."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data import normalize
from jaxmodels.data.augment import flip
from jaxmodels.data.datasets.digits import digits
from jaxmodels.data.datasets.fashion_mnist import fashion_mnist, half_known, numbered
from jaxmodels.data.formats.images import each, image_folder, read_image

pytestmark = pytest.mark.fast
GREY = ((0.3,), (0.2,))
COLOUR = ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))


@pytest.mark.slow
def test_digits_are_normalised_as_numpy_does_it():
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    plain, made = (digits("test", 32, normalize=how).rows(0, 0, 32)["image"] for how in (None, GREY))
    np.testing.assert_allclose(made, (plain - 0.3) / 0.2, rtol=1e-5, atol=1e-5)
    assert made.dtype == np.float32 and digits("test", 32, normalize=GREY).resident() is not None


def test_a_random_change_comes_before_it_and_sees_0_to_1():
    pytest.importorskip("sklearn", reason="needs scikit-learn")
    plain, made = (
        digits("train", 32, 0, augment=(flip,), normalize=how).rows(5, 0, 32)["image"] for how in (None, GREY)
    )
    np.testing.assert_allclose(made, (plain - 0.3) / 0.2, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_all_of_fashion_mnist(real):
    folder = real("fashion_mnist")
    statistics = normalize.FASHION_MNIST
    makes = (
        lambda how: fashion_mnist("test", 8, folder=folder, normalize=how),
        lambda how: numbered("test", 16, 8, folder=folder, normalize=how),
        lambda how: half_known(8, 8, folder=folder, normalize=how),
    )
    for make in makes:
        plain, made = (make(how).rows(0, 0, 8)["image"] for how in (None, statistics))
        np.testing.assert_allclose(made, (plain - 0.2860) / 0.3530, rtol=1e-5, atol=1e-5)
    counts = np.bincount(fashion_mnist("train", 8, folder=folder).arrays["image"].reshape(-1), minlength=256)
    share, level = counts / counts.sum(), np.arange(256) / 255  # the constants are those of these images
    assert (share @ level) == pytest.approx(statistics[0][0], abs=1e-4)
    assert np.sqrt(share @ level**2 - (share @ level) ** 2) == pytest.approx(statistics[1][0], abs=1e-4)


@pytest.mark.parametrize("augment", [None, each([flip])], ids=["plain", "flipped"])
@pytest.mark.parametrize("area", [None, (0.5, 1.0)], ids=["whole", "part"])
def test_images_of_a_folder(tmp_path, augment, area):
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    random = np.random.default_rng(0)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for i in range(2):
            image.fromarray(random.integers(0, 256, (6, 8, 3), np.uint8)).save(tmp_path / name / f"{i}.png")
    options = {"size": 4, "batch": 4, "seed": 0, "augment": augment, "area": area}
    plain, made = (
        image_folder(tmp_path, normalize=how, **options).rows(3, 0, 4)["image"] for how in (None, COLOUR)
    )
    np.testing.assert_allclose(made, (plain - COLOUR[0]) / COLOUR[1], rtol=1e-4, atol=1e-5)
    assert made.dtype == np.float32
    file = tmp_path / "a" / "0.png"
    one = read_image(file, 4, normalize=COLOUR)
    np.testing.assert_allclose(one, (read_image(file, 4) - COLOUR[0]) / COLOUR[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "odd", [((0.5, 0.5), (0.5, 0.5)), ((0.5,), (0.0,)), (0.5, 0.5), ((0.5,),), ((float("nan"),), (1,))]
)
def test_odd_statistics_are_named(odd, tmp_path):
    with pytest.raises(
        ValueError, match=r"normalize: got .*; expected \(mean, deviation\) with 3 values each or one"
    ):
        image_folder(tmp_path, size=4, batch=4, normalize=odd)
