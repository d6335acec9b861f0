"""Faces in a picture by a cascade of three networks (arXiv:1604.02878): many small windows first, few large ones last.

Dimensions: N windows, H W picture, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

CHUNK = 64  # windows that a network is given at once


class Faces(NamedTuple):
    """What was found, best first, in pixels of the picture."""

    boxes: np.ndarray  # (N, 4): y0 x0 y1 x1
    scores: np.ndarray
    points: np.ndarray  # (N, 5, 2): y x of left and right eye, nose, left and right corner of the mouth


def network(found: Any) -> Callable[[np.ndarray], Any]:
    """What convert.load_weights gave, as a compiled function of windows."""
    apply = jax.jit(found.model.apply)
    return lambda x_NHWC: jax.device_get(apply({"params": found.params}, x_NHWC))


def find_faces(
    picture: Any,
    propose: Callable[[np.ndarray], Any],
    refine: Callable[[np.ndarray], Any],
    mark: Callable[[np.ndarray], Any],
    *,
    smallest: int = 20,
    factor: float = 0.709,
    least: tuple[float, float, float] = (0.6, 0.7, 0.7),
) -> Faces:
    """The faces in a picture of pillow's, such as data.images.open_image gives.

    propose, refine and mark: functions of windows (see network) of models/mtcnn.py's pnet, rnet and onet.
    smallest: height of a face in pixels. factor: from one size of the picture to the next smaller one. least:
    probability that each of the three must find. The first network is compiled for each size of picture.
    """
    boxes, scores = _proposed(picture, propose, 12 / smallest, factor, least[0])
    if len(boxes):
        said = _windows(picture, boxes, refine, 24)
        boxes, scores, edges = (x[said.face > least[1]] for x in (boxes, said.face, said.edges))
        kept = suppress(boxes, scores, 0.7)
        boxes = squared(moved(boxes[kept], edges[kept]))
    points = np.zeros((0, 10))
    if len(boxes):
        said = _windows(picture, boxes, mark, 48)
        boxes, scores, edges, points = (
            x[said.face > least[2]] for x in (boxes, said.face, said.edges, said.points)
        )
        points = boxes[:, :2].repeat(5, 1) + points * (boxes[:, 2:] - boxes[:, :2]).repeat(5, 1)
        boxes = moved(boxes, edges)
        kept = suppress(boxes, scores, 0.7, of_smaller=True)
        boxes, scores, points = boxes[kept], scores[kept], points[kept]
    else:
        boxes, scores = np.zeros((0, 4)), np.zeros(0)
    return Faces(boxes[:, [1, 0, 3, 2]], scores, points.reshape(-1, 2, 5).transpose(0, 2, 1)[..., ::-1])


def _proposed(
    picture: Any, propose: Any, scale: float, factor: float, least: float
) -> tuple[np.ndarray, np.ndarray]:
    """(square windows x0 y0 x1 y1, scores) where the first network sees a face, at every size of the picture."""
    boxes, scores, edges = [], [], []
    while min(picture.width, picture.height) * scale >= 12:
        size = int(picture.width * scale + 1), int(picture.height * scale + 1)
        said = propose(_numbers(picture.resize(size, _box()))[None])
        y, x = np.nonzero(said.face[0] > least)
        found = np.stack([2 * x, 2 * y, 2 * x + 12, 2 * y + 12], -1) / scale
        kept = suppress(found, said.face[0][y, x], 0.5)
        boxes.append(found[kept])
        scores.append(said.face[0][y, x][kept])
        edges.append(said.edges[0][y, x][kept])
        scale *= factor
    if not boxes:
        return np.zeros((0, 4)), np.zeros(0)
    all_boxes, all_scores, all_edges = (np.concatenate(x) for x in (boxes, scores, edges))
    kept = suppress(all_boxes, all_scores, 0.7)
    return squared(moved(all_boxes[kept], all_edges[kept])), all_scores[kept]


def _windows(picture: Any, boxes: np.ndarray, look: Any, size: int) -> Any:
    """What a network says of these windows; what lies outside the picture is black."""
    windows = np.stack(
        [
            _numbers(picture.crop(tuple(np.rint(box).astype(int))).resize((size, size), _box()))
            for box in boxes
        ]
    )
    said = []
    for start in range(0, len(windows), CHUNK):
        part = windows[start : start + CHUNK]
        padded = np.pad(part, ((0, CHUNK - len(part)), (0, 0), (0, 0), (0, 0)))
        answer = look(padded)
        said.append(type(answer)(*(x if x is None else np.asarray(x)[: len(part)] for x in answer)))
    return jax.tree.map(lambda *parts: np.concatenate(parts), *said)


def _numbers(picture: Any) -> np.ndarray:
    return (np.asarray(picture, np.float32) - np.float32(127.5)) / np.float32(128)


def _box() -> Any:
    from PIL import Image

    return Image.Resampling.BOX


def moved(boxes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Boxes x0 y0 x1 y1, each edge moved by so many of its widths or heights."""
    size = boxes[:, 2:] - boxes[:, :2]
    return boxes + edges * np.concatenate([size, size], 1)


def squared(boxes: np.ndarray) -> np.ndarray:
    """The squares around the same middles with the longer side."""
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    half = (boxes[:, 2:] - boxes[:, :2]).max(1, keepdims=True) / 2
    return np.concatenate([middle - half, middle + half], 1)


def suppress(
    boxes: np.ndarray, scores: np.ndarray, overlap: float, *, of_smaller: bool = False
) -> np.ndarray:
    """Numbers of the boxes that stay, best first: one goes where a better one overlaps it by more.

    of_smaller: the overlap is a part of the smaller box; else of their union.
    """
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low, high = np.maximum(boxes[best, :2], boxes[rest, :2]), np.minimum(boxes[best, 2:], boxes[rest, 2:])
        common = np.maximum(high - low, 0).prod(1)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - common
        order = rest[common <= overlap * whole]
    return np.array(kept, int)
