"""Tables of labeled texts: a column of texts, a column of labels, a row for each example."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmodels.data.bucketing import TextPipeline, join
from jaxmodels.data.formats.tables import read_table
from jaxmodels.data.order import Remainder

Table = Mapping[str, Sequence[Any] | np.ndarray]


def text_table(
    table: str | os.PathLike[str] | Table | Callable[[], Table],
    *,
    encode: Callable[[str], Sequence[int]],
    classes: Sequence[Any],
    length: int,
    batch: int,
    seed: int | None = None,
    text: str = "text",
    label: str = "label",
    remainder: Remainder | None = None,
) -> TextPipeline:
    """Batches of "inputs", "segments" (int32, `length`), "label" (int32) and "weight"; see TextPipeline.

    table: a file that read_table knows (.csv, .tsv, .jsonl, .parquet), or its columns by name, or a function
        that returns them, called on first use.
    text, label: the names of the columns.
    encode: the tokens of a text, of which the first `length` are taken.
    classes: the values of the label column, in the order of the labels; the same for training and test data,
        of which one may lack some. From a table: learned("classes", lambda: sorted(set(table["label"]))).
    """
    number = {str(value): i for i, value in enumerate(classes)}
    if len(number) < len(classes):
        raise ValueError(f"text_table: got classes={tuple(classes)}; expected each once. Remove the second")

    def arrays() -> dict[str, np.ndarray]:
        path = "text_table" if isinstance(table, Mapping) or callable(table) else str(table)
        texts, labels = labelled_texts(table() if callable(table) else table, text=text, label=label)
        for row, value in enumerate(labels):
            if value not in number:
                raise ValueError(
                    f"{path}: got the label {value!r} in row {row}, counted from 0; expected one of "
                    f"{', '.join(number)}. Correct it, or add it to classes"
                )
        tokens = [encode(text) for text in texts]
        return {**join(tokens), "label": np.array([number[value] for value in labels], np.int32)}

    spec = {"label": ((), np.dtype(np.int32))}
    return TextPipeline(arrays, length=length, batch=batch, seed=seed, remainder=remainder, spec=spec)


def labelled_texts(
    table: str | os.PathLike[str] | Table, *, text: str = "text", label: str = "label"
) -> tuple[list[str], list[str]]:
    """The texts and the labels of a file that read_table knows, or of its columns by name."""
    columns = table if isinstance(table, Mapping) else read_table(table)
    if missing := [name for name in (text, label) if name not in columns]:
        path = "the table" if isinstance(table, Mapping) else table
        raise ValueError(
            f"{path}: got no column {missing[0]!r}; expected one of {', '.join(columns)}. Name one of those"
        )
    return [str(value) for value in columns[text]], [str(value) for value in columns[label]]
