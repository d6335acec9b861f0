"""Boxes as y0 x0 y1 x1 in pixels: areas, overlaps and non-maximum suppression.

Dimensions: M N boxes, K classes.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp


def area(boxes: jax.Array) -> jax.Array:
    """Areas of boxes (..., 4); 0 where y1 < y0 or x1 < x0."""
    return jnp.maximum(boxes[..., 2] - boxes[..., 0], 0) * jnp.maximum(boxes[..., 3] - boxes[..., 1], 0)


def iou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Intersection over union of boxes (..., 4) that broadcast; 0 where both are empty."""
    return _overlap(a, b)[0]


def giou(a: jax.Array, b: jax.Array) -> jax.Array:
    """Generalised intersection over union, from -1 to 1 (arXiv:1902.09630, algorithm 1)."""
    overlap, union = _overlap(a, b)
    around = jnp.concatenate([jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])], -1)
    hull = area(around)
    return overlap - (hull - union) / jnp.maximum(hull, 1e-6)


def _overlap(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(intersection over union, union)."""
    inside = jnp.concatenate([jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])], -1)
    common = area(inside)
    union = area(a) + area(b) - common
    return common / jnp.maximum(union, 1e-6), union


def from_centers(boxes: jax.Array) -> jax.Array:
    """Boxes from centre y, centre x, height and width."""
    return jnp.concatenate([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def to_centers(boxes: jax.Array) -> jax.Array:
    """Boxes as centre y, centre x, height and width."""
    return jnp.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


class Detections(NamedTuple):
    """Detections in an image, best first; entries after the first `number` are zero."""

    boxes: jax.Array  # (most, 4)
    scores: jax.Array
    classes: jax.Array
    number: jax.Array


def nms(
    boxes_N4: jax.Array,
    score_NK: jax.Array,
    *,
    most: int,
    overlap: float = 0.6,
    least: float = 0.05,
    candidates: int = 400,
) -> Detections:
    """Greedy non-maximum suppression by class: drops a box that a better one of its class overlaps by more.

    Of all boxes and classes the `candidates` best above the score `least` take part; at most `most` are
    returned. Compiled with fixed shapes; for a batch, vmap it.
    """
    N, K = score_NK.shape
    score_C, index_C = jax.lax.top_k(score_NK.reshape(-1), min(candidates, N * K))
    box_C4, class_C = boxes_N4[index_C // K], index_C % K
    better_CC = jnp.arange(len(score_C))[:, None] < jnp.arange(len(score_C))
    rival_CC = (class_C[:, None] == class_C) & (iou(box_C4[:, None], box_C4) > overlap) & better_CC

    def visit(i, alive_C):
        return alive_C & ~(rival_CC[i] & alive_C[i])

    alive_C = jax.lax.fori_loop(0, len(score_C), visit, score_C > least)
    kept_C = jnp.where(alive_C, score_C, -1.0)
    score_M, order_M = jax.lax.top_k(kept_C, min(most, len(kept_C)))
    real_M = score_M > 0
    found = Detections(
        box_C4[order_M] * real_M[:, None], score_M * real_M, class_C[order_M] * real_M, real_M.sum()
    )
    short = most - len(score_M)
    if short > 0:

        def pad(x):
            return jnp.pad(x, ((0, short),) + ((0, 0),) * (x.ndim - 1))

        found = Detections(pad(found.boxes), pad(found.scores), pad(found.classes), found.number)
    return found
