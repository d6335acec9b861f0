"""Folders of Pascal VOC."""

from __future__ import annotations

import tarfile

import numpy as np
import pytest

from jaxmodels.data.datasets.bccd import MOST, NAMES, bccd
from jaxmodels.data.formats.voc import voc_folder

pytestmark = pytest.mark.fast

OBJECT = (
    "<object><name>{}</name><bndbox>"
    "<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


@pytest.fixture
def folder(tmp_path):
    """Two images of 20 x 10, one in each list, with one box and two."""
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    folder = tmp_path / "voc"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (folder / part).mkdir(parents=True)
    objects = {"b": [("dog", 2, 1, 12, 9)], "a": [("cat", 0, 0, 20, 10), ("dog", 4, 2, 8, 6)]}
    for name, boxes in objects.items():
        text = "".join(OBJECT.format(*box) for box in boxes)
        (folder / "Annotations" / f"{name}.xml").write_text(f"<annotation>{text}</annotation>")
        image.fromarray(np.full((10, 20, 3), 51 * len(boxes), np.uint8)).save(
            folder / "JPEGImages" / f"{name}.png"
        )
    (folder / "ImageSets" / "Main" / "train.txt").write_text("b\n")
    (folder / "ImageSets" / "Main" / "val.txt").write_text("a\n")
    return folder


def test_boxes_are_scaled_with_their_images(folder):
    batch = voc_folder(folder, ("cat", "dog"), size=(20, 20), batch=2, most=3).rows(0, 0, 2)  # a, then b
    assert batch["boxes"].tolist() == [
        [[0, 0, 20, 20], [4, 4, 12, 8], [0] * 4],
        [[2, 2, 18, 12], [0] * 4, [0] * 4],
    ]
    assert batch["classes"].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert batch["present"].tolist() == [[1, 1, 0], [1, 0, 0]]
    assert np.allclose(batch["image"][:, 0, 0], [[0.4] * 3, [0.2] * 3]) and batch["index"].tolist() == [0, 1]


def test_a_list_and_an_archive_give_the_same(folder, tmp_path):
    with tarfile.open(tmp_path / "voc.tar", "w") as archive:
        archive.add(folder, "VOCdevkit/VOC2007")
    options = {"size": (10, 20), "batch": 1, "most": 2, "normalize": ((0.5,), (0.5,))}
    for split, pixel in (("train", 0.2), ("val", 0.4)):
        one, other = (
            voc_folder(path, ("cat", "dog"), split=split, **options).rows(0, 0, 1)
            for path in (folder, tmp_path / "voc.tar")
        )
        assert all((one[name] == other[name]).all() for name in one)
        assert np.allclose(one["image"], (pixel - 0.5) / 0.5)


def test_what_does_not_fit_is_named(folder, tmp_path):
    def rows(where=folder, classes=("cat", "dog"), **options):
        return voc_folder(where, classes, **{"size": (4, 4), "batch": 1, **options}).rows(0, 0, 1)

    with pytest.raises(
        ValueError,
        match=r"Annotations/a.xml: the annotation: got the class 'cat'; expected one of dog",
    ):
        rows(classes=("dog",))
    with pytest.raises(ValueError, match=r"Annotations/a.xml: got 2 boxes; expected at most 1. Raise most="):
        rows(most=1)
    with pytest.raises(
        ValueError, match=r"got split='test'; expected one of the lists in ImageSets/Main, train, val"
    ):
        rows(split="test")
    with pytest.raises(FileNotFoundError, match=r"got no folder Annotations in it"):
        rows(where=tmp_path)
    (folder / "JPEGImages" / "a.png").unlink()
    with pytest.raises(ValueError, match=r"got no JPEGImages/a.jpg; expected an image of each name"):
        rows()


@pytest.mark.slow
def test_bccd_is_one_of_them(real):
    where = real("bccd") / "bccd.tar.gz"
    options = {"size": (60, 80), "batch": 4}
    one = voc_folder(where, NAMES, split="test", most=MOST, **options).rows(0, 0, 4)
    other = bccd("test", 4, size=(60, 80), folder=where.parent).rows(0, 0, 4)
    assert all((one[name] == other[name]).all() for name in one) and one["present"].sum() > 20
