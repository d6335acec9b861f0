"""CIFAR-10's binary files, generated."""

import hashlib
import io
import tarfile

import numpy as np
import pytest

from jaxmodels.data.datasets import cifar10 as module
from jaxmodels.data.datasets.cifar10 import cifar10

pytestmark = pytest.mark.fast


def rows(n, seed):
    """Rows of the files: pixel (y, x) of colour c is 64 c + 2 y + x // 16."""
    c, y, x = np.meshgrid(np.arange(3), np.arange(32), np.arange(32), indexing="ij")
    pixels = (64 * c + 2 * y + x // 16).astype(np.uint8).reshape(1, -1).repeat(n, 0)
    labels = np.random.default_rng(seed).integers(0, 10, (n, 1), dtype=np.uint8)
    return np.concatenate([labels, pixels], 1)


def written(folder):
    for i, name in enumerate((*module.PARTS["train"], *module.PARTS["test"])):
        (folder / name).write_bytes(rows(4, i).tobytes())
    return folder


def test_pixels_and_labels_are_where_they_belong(tmp_path):
    data = cifar10("train", 5, folder=written(tmp_path))
    batch = data.rows(0, 0, 5)
    assert data.steps == 4 and {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)
    np.testing.assert_allclose(batch["image"][3, 30, 20], np.array([61, 125, 189]) / 255, rtol=1e-6)
    want = np.concatenate([rows(4, i)[:, 0] for i in range(5)])
    assert np.array_equal(data.arrays["label"], want)


def test_the_archive_gives_what_the_files_give(tmp_path, monkeypatch):
    folder = written(tmp_path)
    with tarfile.open(tmp_path / module.ARCHIVE, "w:gz") as archive:
        for name in reversed(module.PARTS["train"]):
            data = (folder / name).read_bytes()
            info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    want = cifar10("train", 5, folder=folder).arrays
    (tmp_path / "data_batch_3.bin").unlink()
    packed = (tmp_path / module.ARCHIVE).read_bytes()
    monkeypatch.setattr(module, "FILES", {module.ARCHIVE: (len(packed), hashlib.sha256(packed).hexdigest())})
    got = cifar10("train", 5, folder=folder).arrays
    assert np.array_equal(got["image"], want["image"]) and np.array_equal(got["label"], want["label"])


def test_what_is_damaged_or_missing_is_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"got no cifar-10-binary.tar.gz; .*Get them from https://www.cs.toronto"
    ):
        cifar10("test", 5, folder=tmp_path).rows(0, 0, 1)
    written(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"12345")
    with pytest.raises(ValueError, match=r"test_batch.bin: got 5 bytes; expected rows of 3,073"):
        cifar10("test", 5, folder=tmp_path).rows(0, 0, 1)
    with pytest.raises(ValueError, match="got split='val'"):
        cifar10("val", 5)
