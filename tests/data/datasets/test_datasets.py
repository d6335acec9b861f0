import hashlib
import time

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.datasets.california_housing import SCALE, california_housing, linear_regression_rmse
from jaxmodels.data.datasets.digits import digits, digits_arrays
from jaxmodels.data.datasets.fashion_mnist import fashion_mnist, half_known, numbered
from jaxmodels.data.datasets.python_source import lzma_bits_per_byte, order0_bits_per_byte, python_source

pytestmark = pytest.mark.fast


def fingerprint(x):
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:12]


def is_described_by_its_spec(data):
    batch = data.rows(0, 0, data.batch)
    return {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)


@pytest.mark.slow
def test_digits_are_split_by_class_and_always_alike():
    train, test = digits("train", 32, 0).arrays, digits("test", 32).arrays
    assert len(train["label"]) == 1_437 and len(test["label"]) == 360
    assert fingerprint(test["label"]) == "4393812e63f3"
    assert abs(np.bincount(test["label"]) / np.bincount(digits_arrays()["label"]) - 0.2).max() < 0.01
    assert digits_arrays()["image"].max() == 1 and is_described_by_its_spec(digits("train", 32, 0))


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_every_digit_is_in_the_test_set_of_exactly_one_fold(folds):
    tests = [digits("test", 8, folds=folds, fold=fold).arrays["image"] for fold in range(folds)]
    assert (
        sum(len(x) for x in tests) == 1_797 and max(len(x) for x in tests) - min(len(x) for x in tests) <= 1
    )
    everything = np.sort([x.tobytes() for x in digits_arrays()["image"]])
    assert np.array_equal(np.sort([x.tobytes() for fold in tests for x in fold]), everything)


def test_a_fold_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="got fold 5"):
        digits("test", 8, fold=5)


def test_building_a_dataset_reads_nothing_and_knows_its_shapes(tmp_path):
    clothes = fashion_mnist("train", 128, seed=0, folder=tmp_path / "gone")
    houses = california_housing("train", 64, folder=tmp_path / "gone")
    assert clothes.spec["image"] == ((28, 28, 1), np.float32) and houses.spec["features"] == (
        (13,),
        np.float32,
    )
    for data in (clothes, houses):
        with pytest.raises(FileNotFoundError, match=r"gone: got no .*Get them from https://github.com"):
            data.rows(0, 0, 1)


@pytest.mark.slow
def test_fashion_mnist_is_complete_and_host_and_device_prepare_it_alike(real):
    data = fashion_mnist("test", 100, folder=real("fashion_mnist"))
    assert data.steps == 100 and np.array_equal(np.bincount(data.arrays["label"]), np.full(10, 1_000))
    assert data.arrays["image"].dtype == np.uint8 and is_described_by_its_spec(data)
    batch = data.rows(3, 0, 100)
    arrays = {name: jnp.asarray(x[:500]) for name, x in data.arrays.items()}
    device = data.gather(arrays, jnp.arange(300, 400))
    assert batch["image"].max() == 1 and all(np.array_equal(batch[name], device[name]) for name in batch)


def test_images_for_generation_are_numbered(real):
    folder = real("fashion_mnist")
    data, plain = numbered("test", 7, 4, folder=folder), fashion_mnist("test", 4, folder=folder)
    assert data.rows(1, 0, 4)["index"].tolist()[:3] == [4, 5, 6] and data.rows(1, 0, 4)[
        "weight"
    ].tolist() == [1, 1, 1, 0]
    assert {name: np.dtype(kind) for name, (_, kind) in data.spec.items()} == {
        k: x.dtype for k, x in data.rows(0, 0, 4).items()
    }
    for name in ("image", "label"):
        np.testing.assert_array_equal(data.rows(0, 0, 4)[name], plain.rows(0, 0, 4)[name])


@pytest.mark.slow
def test_a_probe_knows_the_labels_of_training_images_alone(real):
    folder = real("fashion_mnist")
    got = half_known(3, 6, folder=folder).rows(0, 0, 6)
    assert got["known"].tolist() == [1, 1, 1, 0, 0, 0]
    parts = [fashion_mnist(split, 3, folder=folder).rows(0, 0, 3) for split in ("train", "test")]
    for name in ("image", "label"):
        np.testing.assert_array_equal(got[name], np.concatenate([part[name] for part in parts]))


def test_a_damaged_fashion_mnist_file_is_named(real, tmp_path):
    for path in real("fashion_mnist").glob("t10k*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "t10k-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(ValueError, match=r"t10k-labels-idx1-ubyte\.gz: got sha256"):
        fashion_mnist("test", 100, folder=tmp_path).rows(0, 0, 1)


@pytest.mark.slow
def test_california_housing_is_standardised_by_its_training_rows(real):
    folder = real("california_housing")
    train, test = (california_housing(split, 64, folder=folder) for split in ("train", "test"))
    features = train.arrays["features"]
    assert (
        len(features) == 16_512 and len(test.arrays["features"]) == 4_128 and is_described_by_its_spec(test)
    )
    assert abs(features[:, :8].mean(0)).max() < 1e-4 and abs(features[:, :8].std(0) - 1).max() < 1e-4
    assert (features[:, 8:].sum(1) == 1).all() and not np.isnan(test.arrays["features"]).any()
    assert abs(train.arrays["target"].mean() * SCALE - 206_856) < 2_000  # the mean of all rows
    assert fingerprint(test.arrays["target"]) == "5ae5f1763323"


@pytest.mark.slow
def test_least_squares_on_california_housing_does_as_the_literature_says(real):
    assert abs(linear_regression_rmse(real("california_housing")) - 66_189) < 10


def test_python_source_is_some_megabytes_of_which_about_a_tenth_is_for_validation():
    train, validation = python_source("train"), python_source("validation")
    assert train.dtype == np.uint8 and train[0] == validation[0] == 0
    share = len(validation) / (len(train) + len(validation))
    assert 5e6 < len(train) < 5e7 and 0.03 < share < 0.25
    assert b"class TestCase(object)" in bytes(train) + bytes(validation)  # unittest itself belongs to it


def test_python_source_leaves_out_tests_and_packages_that_were_installed(tmp_path):
    expected = ["os.py", "json/decoder.py", "unittest/case.py"]
    others = [
        "test/test_os.py",
        "idlelib/idle_test/a.py",
        "lib2to3/tests/b.py",
        "site-packages/c.py",
        "a/__pycache__/d.py",
    ]
    for name in [*expected, *others, "os.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"in {name}")
    sides = []
    for split in ("train", "validation"):
        try:
            sides.append(bytes(python_source(split, folder=tmp_path)))
        except ValueError:  # with three files one side may be empty
            sides.append(b"")
    found = sorted(text for side in sides for text in side.decode().split("\0")[1:])
    assert found == sorted(f"in {name}" for name in expected)


def test_order0_is_the_entropy_of_the_bytes():
    assert order0_bits_per_byte(np.arange(256, dtype=np.uint8)) == 8
    assert order0_bits_per_byte(np.zeros(9, np.uint8)) == 0


@pytest.mark.slow
def test_lzma_pays_little_for_what_it_has_seen_and_all_for_noise():
    noise = np.frombuffer(np.random.default_rng(0).bytes(100_000), np.uint8)
    assert lzma_bits_per_byte(noise, noise[50_000:]) < 0.1
    assert 7.9 < lzma_bits_per_byte(noise[:50_000], noise[50_000:]) < 8.1


@pytest.mark.slow
def test_lzma_on_python_source_takes_seconds_and_beats_order0():
    train, validation = python_source("train"), python_source("validation")[:300_000]
    begun = time.perf_counter()
    assert (
        1 < lzma_bits_per_byte(train, validation, tail=1 << 20) < 3 < 4 < order0_bits_per_byte(validation) < 5
    )
    assert time.perf_counter() - begun < 20
