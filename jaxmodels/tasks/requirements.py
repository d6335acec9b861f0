"""Requirements that several tasks have of their batches; see jaxmodels.task.Requirement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodels.task import Requirement

FINITE = float(np.finfo(np.float32).max)


def labels(
    classes: int, shape: tuple[int, ...] | None = (), where: tuple[str, ...] = ("weight",)
) -> Requirement:
    """A class of the model wherever the weight is above 0."""
    return Requirement(
        f"the model's {classes} classes",
        "Number the classes from 0 (np.unique(x, return_inverse=True)[1] does), give the model more "
        "classes, or give what is to be left out the weight 0",
        integer=True,
        low=0,
        high=classes - 1,
        shape=shape,
        where=where,
    )


def tokens(vocabulary: int, where: tuple[str, ...] = (), shape: tuple[int, ...] | None = None) -> Requirement:
    """A token of the model's vocabulary."""
    left_out = (
        " Give what is to be left out the weight 0."
        if where
        else " Fill rows with a token and leave it out by segments."
    )
    return Requirement(
        f"the model's {vocabulary:,} tokens",
        f"Take the model's own tokenizer, or give the model a larger vocabulary.{left_out}",
        integer=True,
        low=0,
        high=vocabulary - 1,
        shape=shape,
        where=where,
    )


def weights(shape: tuple[int, ...] | None = ()) -> Requirement:
    """The weight of a row, or of an element."""
    return Requirement(
        "how much each counts, 0 for padding",
        "Give 1 for what counts, 0 for what does not",
        False,
        0,
        FINITE,
        shape,
    )


def segments(shape: tuple[int, ...] | None = None) -> Requirement:
    """The number of a token's text in its row."""
    do = "Number the texts of a row from 1, and give padding 0"
    return Requirement("numbers of the texts in a row, 0 for padding", do, True, 0, shape=shape)


def finite(
    what: str, shape: tuple[int, ...] | None = None, where: tuple[str, ...] = ("weight",)
) -> Requirement:
    """Numbers without nan, wherever the weight is above 0."""
    do = "Fill or drop what is missing, or give it the weight 0"
    return Requirement(what, do, False, -FINITE, FINITE, shape, where)


def inputs_of(x: Any, table: int | None) -> Requirement:
    """The model's inputs: tokens below the size of a table, or any numbers."""
    return tokens(table) if table else Requirement("numbers", "Convert them to numbers")


def of_images(batch: Mapping[str, Any], params: Any, extra: Any) -> dict[str, Requirement]:
    """The requirements of a task of images alone."""
    return {"image": inputs_of(batch["image"], None), "weight": weights()}


def boxes(shape: tuple[int, ...]) -> Requirement:
    """Boxes as y0 x0 y1 x1, where they are present."""

    def wrong(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        box = batch["boxes"]
        return ~((box[..., 0] <= box[..., 2]) & (box[..., 1] <= box[..., 3]))

    return Requirement(
        "boxes as y0 x0 y1 x1 in pixels, y0 not above y1 nor x0 above x1",
        "Change their order, from x y width height too, or give a box that is not there 0 under 'present'",
        low=-FINITE,
        high=FINITE,
        shape=shape,
        where=("present", "weight"),
        wrong=wrong,
    )


def objects(batch: Mapping[str, Any], classes: int) -> dict[str, Requirement]:
    """The requirements of images with boxes."""
    required = of_images(batch, None, None)
    if "boxes" not in batch:
        return required
    M = batch["boxes"].shape[1]
    return {
        **required,
        "boxes": boxes((M, 4)),
        "classes": labels(classes, (M,), ("present", "weight")),
        "present": Requirement("1 for a box and 0 for none", "Give 1 or 0", low=0, high=1, shape=(M,)),
    }


def fields(sizes: Sequence[int], names: Sequence[str] = (), key: str = "ids") -> Requirement:
    """Rows of categories, one for each field, each below the field's size, wherever the weight is above 0.

    names: of the first fields, for the message. key: of the batch.
    """

    def wrong(batch: Mapping[str, np.ndarray]) -> np.ndarray:
        ids = batch[key]
        return (ids < 0) | (ids >= np.array(sizes, np.int64))

    named = [
        f"{size:,} {names[n] + 's' if n < len(names) else f'in column {n}'}" for n, size in enumerate(sizes)
    ]
    shown = ", ".join(named[:6]) + (", …" if len(named) > 6 else "")
    return Requirement(
        f"indices from 0 below the model's {shown}",
        "Number them as jaxmodels.data.interactions does, or give the model more",
        integer=True,
        low=0,
        shape=(len(sizes),),
        where=("weight",),
        wrong=wrong,
    )
