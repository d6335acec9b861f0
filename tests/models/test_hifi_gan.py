"""HiFi-GAN's generator: lengths, and sizes that do not fit. Values are compared in convert/test_vits.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxmodels.models.hifi_gan import HiFiGAN, hifi_gan_v3

SHAPE = jax.ShapeDtypeStruct((2, 5, 3), jnp.float32)
TINY = {"channels": 8, "strides": (3, 2), "kernels": (5, 4)}


@pytest.mark.parametrize("make", [hifi_gan_v3, lambda: HiFiGAN(**TINY)])
def test_a_frame_becomes_as_many_samples_as_the_product_of_the_strides(make):
    audio_BN, _ = jax.eval_shape(make().init_with_output, jax.random.key(0), SHAPE)
    assert audio_BN.shape == (2, 5 * make().hop) and make().hop in (6, 256)


@pytest.mark.parametrize(
    "sizes, text",
    [
        ({"kernels": (6, 4)}, "longer by an even number"),
        ({"kernels": (5,)}, "a kernel for each"),
        ({"block_kernels": (3, 4, 5)}, "odd kernels"),
        ({"channels": 6}, "a multiple of 4"),
    ],
)
def test_sizes_that_do_not_fit_are_named(sizes, text):
    with pytest.raises(ValueError, match=text):
        jax.eval_shape(HiFiGAN(**{**TINY, **sizes}).init, jax.random.key(0), SHAPE)
