"""The annotations of Pascal VOC, and the images of BCCD."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.datasets.bccd import MOST, NAMES, bccd, read_voc

pytestmark = pytest.mark.fast

ONE = """<annotation><object><name>{}</name><bndbox>
<xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax>
</bndbox></object></annotation>"""


def test_an_annotation_gives_boxes_with_y_first_and_classes():
    boxes, classes = read_voc(ONE.format("WBC", 10, 20, 30, 50).encode(), NAMES)
    np.testing.assert_array_equal(boxes, [[20, 10, 50, 30]])
    np.testing.assert_array_equal(classes, [1])


def test_empty_boxes_are_skipped():
    boxes, classes = read_voc(ONE.format("RBC", 10, 20, 10, 50).encode(), NAMES)
    assert boxes.shape == (0, 4) and len(classes) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            ONE.format("cat", 1, 2, 3, 4),
            "got the class 'cat'; expected one of RBC, WBC, Platelets",
        ),
        (
            '<!DOCTYPE a [<!ENTITY b "bb">]>' + ONE.format("RBC", 1, 2, 3, 4),
            "declares a document type: got a DOCTYPE; expected plain XML",
        ),
    ],
)
def test_odd_annotations_are_refused(text, said):
    with pytest.raises(ValueError, match=said):
        read_voc(text.encode(), NAMES)


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("train", 205), ("val", 87), ("test", 72)])
def test_the_real_images_come_with_their_boxes(split, count, real):
    pytest.importorskip("PIL", reason="needs pillow")
    data = bccd(split, 8, size=(120, 160), folder=real("bccd"))
    batch = data.rows(0, 0, 8)
    got = {name: (x.shape[1:], x.dtype) for name, x in batch.items()}
    assert got == dict(data.spec)
    assert len(data.arrays["image"]) == count and batch["image"].max() <= 1
    real = data.arrays["present"] > 0
    assert real.sum(1).min() > 0 and real.sum(1).max() < MOST
    boxes = data.arrays["boxes"][real]
    assert (
        boxes.min() >= 0 and (boxes[:, 2:] <= [120.01, 160.01]).all() and (boxes[:, 2:] > boxes[:, :2]).all()
    )


def test_a_split_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError, match="bccd: got split='valid'; expected one of 'train', 'val', 'test', 'trainval'"
    ):
        bccd("valid", 8)
