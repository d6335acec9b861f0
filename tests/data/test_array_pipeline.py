import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.augment import crop, flip
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.pipeline import Pipeline

pytestmark = pytest.mark.fast


def images(n=23):
    draw = np.random.default_rng(0)
    return {"image": draw.random((n, 6, 6, 1), np.float32), "label": np.arange(n, dtype=np.int32)}


def make(**options):
    return ArrayPipeline(images, **{"batch": 8, "seed": 3, **options})


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("remainder", ["wrap", "drop", "pad"])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("augment", [(), (flip, crop(2))])
def test_rows_are_a_slice_of_the_batch(remainder, seed, augment):
    data = make(remainder=remainder, seed=seed, augment=augment)
    for step in (0, 2, 7):
        whole = data.rows(step, 0, 8)
        assert equal(data.rows(step, 3, 7), {name: x[3:7] for name, x in whole.items()})


def test_reading_from_the_middle_gives_what_reading_through_gives():
    through, data = make(augment=(flip, crop(2))), make(augment=(flip, crop(2)))
    batches = [through.rows(step, 0, 8) for step in range(9)]
    assert equal(data.rows(6, 0, 8), batches[6]) and equal(data.rows(1, 0, 8), batches[1])


def test_an_example_is_changed_alike_wherever_the_batch_ends_and_differently_in_each_pass():
    data = ArrayPipeline({"image": np.tile(images(1)["image"], (16, 1, 1, 1))}, batch=16, augment=(crop(2),))
    other = ArrayPipeline({"image": np.tile(images(1)["image"], (16, 1, 1, 1))}, batch=4, augment=(crop(2),))
    image = data.rows(0, 0, 16)["image"]
    assert np.array_equal(image[4:8], other.rows(1, 0, 4)["image"])  # the same position in the stream
    assert not np.array_equal(image, data.rows(1, 0, 16)["image"])


@pytest.mark.slow
def test_gather_on_jax_arrays_equals_gather_on_numpy():
    data = make(remainder="pad", prepare=lambda batch: {**batch, "image": batch["image"] * np.float32(1 / 3)})
    indices = data.indices(2, 0, 8)
    on_host = data.gather(data.arrays, indices)
    on_device = data.gather(
        {name: jnp.asarray(x) for name, x in data.arrays.items()}, jnp.asarray(indices, jnp.int32)
    )
    assert equal(on_host, {name: np.asarray(x) for name, x in on_device.items()})


def test_weight_counts_each_example_once_a_pass():
    data = make(remainder="pad", seed=None)
    batches = [data.rows(step, 0, 8) for step in range(data.steps)]
    seen = np.concatenate([b["label"][b["weight"] > 0] for b in batches])
    assert np.array_equal(seen, np.arange(23))


@pytest.mark.parametrize("shape", [(3,), (3, 2)])
def test_a_weight_of_ones_own_is_kept_and_padding_has_none(shape):
    own = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    data = ArrayPipeline({"x": np.zeros(3), "weight": own}, batch=2)
    assert np.array_equal(data.rows(1, 0, 2)["weight"], np.stack([own[2], 0 * own[2]]).astype(np.float32))
    assert data.spec["weight"] == (shape[1:], np.dtype(np.float32))


def test_spec_tells_the_shapes_of_a_batch():
    data = make()
    batch = data.rows(0, 0, 8)
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)
    assert isinstance(data, Pipeline)


def test_arrays_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="differ in length"):
        ArrayPipeline({"a": np.zeros(3), "b": np.zeros(4)}, batch=1).rows(0, 0, 1)
