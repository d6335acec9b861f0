"""BANKING77: 13,083 questions to a bank, each with one of 77 intents (arXiv:2003.04807; CC BY 4.0)."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.bucketing import TextPipeline
from jaxmodels.data.formats.text_table import Table, text_table
from jaxmodels.runs.learned import learned

CLASSES = 77
FILES: locate.Files = {
    "categories.json": (2036, "53261da888122daf2d120d925458631d9619e15d82e56052e7a42e535ce32b63"),
    "train.csv": (839073, "b06e26ac675513959a63135f11b94ea7786ed02da65db93a5650d8838cbc664b"),
    "test.csv": (239961, "d12d6e3bc4c3103966ae786dc435913c0c563dfa328f5a3646d0e62cfeeb474d"),
}
WHERE = "https://github.com/PolyAI-LDN/task-specific-datasets (banking_data)"

Split = Literal["train", "test"]


def banking77(
    split: Split,
    batch: int,
    seed: int | None = None,
    *,
    encode: Callable[[str], Sequence[int]],
    length: int = 64,
    folder: locate.PathLike | None = None,
) -> TextPipeline:
    """Batches of "inputs", "segments" (int32, both of `length`), "label" (int32) and "weight".

    encode: a text as tokens, with those that begin and end it; a longer text keeps its last token.
    folder: the folder with the files; else $JAXMODELS_DATA/banking77, else ~/.cache/jaxmodels/data/banking77.
    """
    choices.check("banking77", "split", split, Split)

    def table() -> Table:
        names(folder)  # a run keeps them
        texts, label = examples(split, folder)
        return {"text": texts, "label": label}

    def cut(text: str) -> Sequence[int]:
        return truncated(encode(text), length)

    return text_table(table, encode=cut, classes=range(CLASSES), length=length, batch=batch, seed=seed)


def truncated(tokens: Sequence[int], length: int) -> Sequence[int]:
    """The tokens of a text; of a longer one the first, and its last token."""
    return [*tokens[: length - 1], tokens[-1]] if len(tokens) > length else tokens


def examples(split: Split, folder: locate.PathLike | None = None) -> tuple[list[str], np.ndarray]:
    """Texts and their labels: indices into categories.json, int32."""
    choices.check("banking77", "split", split, Split)
    return _read(locate.folder("banking77", folder), split)


def names(folder: locate.PathLike | None = None) -> list[str]:
    """The intents, in the order of their labels."""
    return list(learned("banking77: intents", lambda: _names(locate.folder("banking77", folder))))


def _names(folder: Path) -> list[str]:
    locate.check(folder, FILES, where=WHERE)
    return list(json.loads((folder / "categories.json").read_text()))


@cache
def _read(folder: Path, split: Split) -> tuple[list[str], np.ndarray]:
    number = {name: i for i, name in enumerate(_names(folder))}
    with (folder / f"{split}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], np.array([number[row["category"]] for row in rows], np.int32)


def nearest_mean_accuracy(embed: Callable[[Split], tuple[np.ndarray, np.ndarray]]) -> float:
    """Share of the test questions whose embedding is nearest, by cosine, to their intent's mean: no training.

    embed: a split's embeddings (N x D, each of length 1) and labels (N).
    """
    (x, label), (test, test_label) = embed("train"), embed("test")
    means = np.stack([x[label == k].mean(0) for k in range(CLASSES)])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    return float(((test @ means.T).argmax(1) == test_label).mean())
