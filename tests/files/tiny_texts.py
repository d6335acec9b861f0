"""Predictors of texts and of rows that need no training, for tests of what surrounds a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels import Model, Predictor


def _letters(text: str) -> dict[str, Any]:
    return {"x": np.array([ord(letter) for letter in text.ljust(8)[:8]], np.int32)}


LETTERS = Predictor(
    read=_letters,
    predict=lambda params, extra, batch: (batch["x"] == ord("a")).sum(1) + params,
    report=lambda count: {"count": int(count), "parts": {"a": int(count)}},
    input="text",
)


def _number(row: dict[str, Any]) -> dict[str, Any]:
    try:
        return {"x": np.float32(row["x"]), "y": np.float32(row["y"])}
    except (TypeError, ValueError) as error:
        raise ValueError(f"got x {row['x']!r} and y {row['y']!r}; expected numbers") from error


SUMS = Predictor(
    read=_number,
    predict=lambda params, extra, batch: batch["x"] + batch["y"] + params,
    report=lambda total: {"sum": float(total)},
    input="row",
    fields=("x", "y"),
)


def texts() -> Model:
    """Counts the letter a among the first eight."""
    return Model(Path("texts"), np.int32(0), {}, LETTERS)


def rows() -> Model:
    """Adds two columns."""
    return Model(Path("rows"), np.float32(0), {}, SUMS)
