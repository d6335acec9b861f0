"""Mean average precision of detections as COCO's evaluation defines it, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def average_precision(
    pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], classes: Sequence[str]
) -> dict[str, float]:
    """ "map50" (overlap of 0.5), "map" (mean over overlaps of 0.5 to 0.95) and "ap50 NAME" of each class.

    pairs: (detected, true) of each image. Both have "boxes" (y0 x0 y1 x1) and "classes"; the detected ones
    also "scores". A class that is on no image counts nowhere.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError(
            "got no pycocotools; expected it for average precision. Do pip install 'jaxmodels[scores]'"
        ) from error

    def annotations(kind: int) -> list[dict[str, Any]]:
        """COCO's entries of all boxes: the detected ones for kind 0, the true ones for kind 1."""
        entries: list[dict[str, Any]] = []
        for image, pair in enumerate(pairs, 1):
            objects = pair[kind]
            for i, (y0, x0, y1, x1) in enumerate(np.asarray(objects["boxes"], float).reshape(-1, 4).tolist()):
                box = [x0, y0, x1 - x0, y1 - y0]
                entry = {
                    "id": len(entries) + 1,
                    "image_id": image,
                    "category_id": int(objects["classes"][i]) + 1,
                    "bbox": box,
                    "area": box[2] * box[3],
                    "iscrowd": 0,
                }
                if kind == 0:
                    entry["score"] = float(objects["scores"][i])
                if not np.isfinite([*box, entry.get("score", 0.0)]).all():
                    which = "a true box" if kind else "a detected box or its score"
                    do = "Correct the data." if kind else "Evaluate a model whose loss is finite."
                    raise ValueError(
                        f"average_precision: got {which} of image {image - 1} that is not finite; expected "
                        f"numbers. {do}"
                    )
                entries.append(entry)
        return entries

    shared = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(pairs) + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        both = []
        for kind in (1, 0):  # COCOeval takes the true boxes first
            data = COCO()
            data.dataset = {**shared, "annotations": annotations(kind)}
            data.createIndex()
            both.append(data)
        evaluation = COCOeval(*both, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    # By overlap, recall and class; of all areas, with the most detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    present = (precision > -1).all((0, 1))
    by_class = {
        f"ap50 {name}": float(precision[0, :, k].mean()) for k, name in enumerate(classes) if present[k]
    }
    return {
        "map50": float(precision[0][:, present].mean()) if present.any() else float("nan"),
        "map": float(precision[:, :, present].mean()) if present.any() else float("nan"),
        **by_class,
    }


def score(
    predictions_to_pairs: Callable[..., Any], classes: Sequence[str]
) -> Callable[[list, list], dict[str, float]]:
    """For Evaluation.score: average_precision of predictions_to_pairs(predictions, batches)."""

    def measure(predictions: list, batches: list) -> dict[str, float]:
        return average_precision(predictions_to_pairs(predictions, batches), classes)

    return measure
