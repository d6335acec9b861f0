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

    pairs: (found, true) of each image with "boxes" (y0 x0 y1 x1), "classes" and, of what was found, "scores".
    A class that is on no image counts nowhere.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ImportError("average precision needs pycocotools; pip install 'jaxmodels[scores]'") from error

    def entries(kind: int) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        for image, pair in enumerate(pairs, 1):
            one = pair[kind]
            for i, (y0, x0, y1, x1) in enumerate(np.asarray(one["boxes"], float).reshape(-1, 4).tolist()):
                box = [x0, y0, x1 - x0, y1 - y0]
                entry = {
                    "id": len(out) + 1,
                    "image_id": image,
                    "category_id": int(one["classes"][i]) + 1,
                    "bbox": box,
                }
                entry |= {"area": box[2] * box[3], "iscrowd": 0}
                if not np.isfinite([*box, float(one["scores"][i]) if kind == 0 else 0.0]).all():
                    whose = "a true box" if kind else "a found box or its score"
                    raise ValueError(
                        f"average_precision: got {whose} of image {image - 1} that is not finite; expected numbers. "
                        f"{'Correct the data' if kind else 'Evaluate a model whose loss is finite'}"
                    )
                out.append({**entry, "score": float(one["scores"][i])} if kind == 0 else entry)
        return out

    known = {
        "info": {},
        "images": [{"id": i} for i in range(1, len(pairs) + 1)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        both = []
        for kind in (1, 0):
            data = COCO()
            data.dataset = {**known, "annotations": entries(kind)}
            data.createIndex()
            both.append(data)
        evaluation = COCOeval(*both, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval["precision"][
        :, :, :, 0, -1
    ]  # overlaps, recalls, classes; all areas, most detections
    there = (precision > -1).all((0, 1))
    return {
        "map50": float(precision[0][:, there].mean()) if there.any() else float("nan"),
        "map": float(precision[:, :, there].mean()) if there.any() else float("nan"),
        **{f"ap50 {name}": float(precision[0, :, k].mean()) for k, name in enumerate(classes) if there[k]},
    }


def score(
    predictions_to_pairs: Callable[..., Any], classes: Sequence[str]
) -> Callable[[list, list], dict[str, float]]:
    """For Evaluation.score: average_precision of predictions_to_pairs(predictions, batches)."""
    return lambda predictions, batches: average_precision(predictions_to_pairs(predictions, batches), classes)
