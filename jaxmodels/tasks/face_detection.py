"""Faces in an image by a cascade of three networks: many small windows first, few large ones last.

Source: MTCNN, arXiv:1604.02878. Dimensions: N windows, H W image, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

CHUNK = 64  # windows that a network takes at once


class Faces(NamedTuple):
    """Detected faces, best first, in pixels of the image."""

    boxes: np.ndarray  # (N, 4): y0 x0 y1 x1
    scores: np.ndarray
    points: np.ndarray  # (N, 5, 2): y x of left and right eye, nose, left and right corner of the mouth


def network(found: Any) -> Callable[[np.ndarray], Any]:
    """A network from convert.load_weights as a compiled function of windows."""
    apply = jax.jit(found.model.apply)

    def run(x_NHWC: np.ndarray) -> Any:
        return jax.device_get(apply({"params": found.params}, x_NHWC))

    return run


def find_faces(
    image: Any,
    propose: Callable[[np.ndarray], Any],
    refine: Callable[[np.ndarray], Any],
    mark: Callable[[np.ndarray], Any],
    *,
    smallest: int = 20,
    factor: float = 0.709,
    least: tuple[float, float, float] = (0.6, 0.7, 0.7),
) -> Faces:
    """The faces in an image of pillow's, such as data.formats.images.open_image gives.

    propose, refine and mark: functions of windows (see network) of models/mtcnn.py's pnet, rnet and onet.
    smallest: height of a face in pixels. factor: from one size of the image to the next smaller one. least:
    the least probability for each of the three. The first network is compiled for each size of image.
    """
    boxes, scores = _proposed(image, propose, 12 / smallest, factor, least[0])
    if len(boxes):
        outputs = _windows(image, boxes, refine, 24)
        boxes, scores, edges = (x[outputs.face > least[1]] for x in (boxes, outputs.face, outputs.edges))
        kept = suppress(boxes, scores, 0.7)
        boxes = squared(moved(boxes[kept], edges[kept]))
    points = np.zeros((0, 10))
    if len(boxes):
        outputs = _windows(image, boxes, mark, 48)
        boxes, scores, edges, points = (
            x[outputs.face > least[2]] for x in (boxes, outputs.face, outputs.edges, outputs.points)
        )
        points = boxes[:, :2].repeat(5, 1) + points * (boxes[:, 2:] - boxes[:, :2]).repeat(5, 1)
        boxes = moved(boxes, edges)
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        boxes, scores, points = boxes[kept], scores[kept], points[kept]
    else:
        boxes, scores = np.zeros((0, 4)), np.zeros(0)
    return Faces(boxes[:, [1, 0, 3, 2]], scores, points.reshape(-1, 2, 5).transpose(0, 2, 1)[..., ::-1])


def _proposed(
    image: Any, propose: Any, scale: float, factor: float, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """(square windows x0 y0 x1 y1, scores) where the first network finds a face, at all image sizes."""
    boxes, scores, edges = [], [], []
    while min(image.width, image.height) * scale >= 12:
        size = int(image.width * scale + 1), int(image.height * scale + 1)
        outputs = propose(_normalised(image.resize(size, _box_filter()))[None])
        y, x = np.nonzero(outputs.face[0] > least)
        found = np.stack([2 * x, 2 * y, 2 * x + 12, 2 * y + 12], -1) / scale
        kept = suppress(found, outputs.face[0][y, x], 0.5)
        boxes.append(found[kept])
        scores.append(outputs.face[0][y, x][kept])
        edges.append(outputs.edges[0][y, x][kept])
        scale *= factor
    if not boxes:
        return np.zeros((0, 4)), np.zeros(0)
    all_boxes, all_scores, all_edges = (np.concatenate(x) for x in (boxes, scores, edges))
    kept = suppress(all_boxes, all_scores, 0.7)
    return squared(moved(all_boxes[kept], all_edges[kept])), all_scores[kept]


def _windows(image: Any, boxes: np.ndarray, run: Any, size: int) -> Any:
    """A network's outputs for these windows; beyond the image they are black."""
    crops = [image.crop(tuple(np.rint(box).astype(int))) for box in boxes]
    windows = np.stack([_normalised(crop.resize((size, size), _box_filter())) for crop in crops])
    outputs = []
    for start in range(0, len(windows), CHUNK):
        chunk = windows[start : start + CHUNK]
        padded = np.pad(chunk, ((0, CHUNK - len(chunk)), (0, 0), (0, 0), (0, 0)))
        output = run(padded)
        outputs.append(type(output)(*(x if x is None else np.asarray(x)[: len(chunk)] for x in output)))
    return jax.tree.map(lambda *chunks: np.concatenate(chunks), *outputs)


def _normalised(image: Any) -> np.ndarray:
    return (np.asarray(image, np.float32) - np.float32(127.5)) / np.float32(128)


def _box_filter() -> Any:
    from PIL import Image

    return Image.Resampling.BOX


def moved(boxes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Boxes x0 y0 x1 y1, each edge moved by a fraction of the width or height."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + edges * np.concatenate([size, size], 1)


def squared(boxes: np.ndarray) -> np.ndarray:
    """The squares with the same centres and the longer side."""
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.concatenate([center - half, center + half], 1)


def suppress(
    boxes: np.ndarray, scores: np.ndarray, overlap: float, *, of_smaller: bool = False
) -> np.ndarray:
    """Indices of the boxes that stay, best first; a box is dropped if a better one overlaps it by more.

    of_smaller: the overlap is a fraction of the smaller box; else of the union.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = np.maximum(high - low, 0).prod(1)
        base = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - common
        order = rest[common <= overlap * base]
    return np.array(kept, int)
