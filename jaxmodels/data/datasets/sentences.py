"""Sentences in two classes, for ten-fold cross-validation: opinions of films, and opinions against plots.

"polarity" is the sentence polarity data v1.0 (Pang and Lee, 2005), 5,331 sentences of each kind;
"subjectivity" their subjectivity data v1.0 (2004), 5,000 of each. Both as NLTK packs them.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.archive import members
from jaxmodels.data.bucketing import TextPipeline
from jaxmodels.data.formats.text_table import Table, text_table
from jaxmodels.data.order import permute
from jaxmodels.data.unpack import reading
from jaxmodels.runs.learned import learned

FOLDS = 10
UNKNOWN = 1
SPLIT = re.compile(r"[\w'-]+|[^\w\s]")  # words and marks, which stand apart in the data
WHERE = "https://github.com/nltk/nltk_data (packages/corpora)"

Name = Literal["polarity", "subjectivity"]
Side = Literal["train", "held-out"]


class _Set(NamedTuple):
    package: str  # folder and file, as NLTK names them
    members: tuple[str, str]  # of class 0 and of class 1
    each: int  # sentences of a class
    encoding: str


SETS = {
    "polarity": _Set("sentence_polarity", ("rt-polarity.neg", "rt-polarity.pos"), 5331, "utf-8"),
    "subjectivity": _Set("subjectivity", ("plot.tok.gt9.5000", "quote.tok.gt9.5000"), 5000, "latin-1"),
}


def sentences(
    name: Name,
    side: Side,
    batch: int,
    seed: int | None = None,
    *,
    fold: int,
    words: int = 20_000,
    length: int = 64,
    folder: locate.PathLike | None = None,
) -> TextPipeline:
    """Batches of "inputs", "segments" (int32, both of `length`), "label" (int32) and "weight".

    A token is a word's rank among the most common words of the fold's training sentences, from 2 on; UNKNOWN
    for other words and those that occur once.

    fold: the one of FOLDS that is held out, by a permutation that never changes.
    words: every token is below it.
    folder: the folder with NLTK's .zip; else $JAXMODELS_DATA/nltk_sentence_polarity or nltk_subjectivity,
        else in ~/.cache/jaxmodels/data.
    """
    choices.check("sentences", "name", name, Name)
    choices.check("sentences", "side", side, Side)
    if not 0 <= fold < FOLDS:
        raise ValueError(f"sentences: got fold={fold}; expected one from 0 to {FOLDS - 1}. Change it")

    path = locate.folder(f"nltk_{SETS[name].package}", folder)

    @cache
    def number() -> dict[str, int]:
        return {word: i for i, word in enumerate(_words(path, name, fold, words), 2)}

    def table() -> Table:
        texts, label, held = _fold(path, name, fold)
        rows = np.flatnonzero(held if side == "held-out" else ~held)
        return {"text": [" ".join(texts[i]) for i in rows], "label": label[rows]}

    def encode(text: str) -> list[int]:
        return [number().get(word, UNKNOWN) for word in text.split()]

    return text_table(table, encode=encode, classes=(0, 1), length=length, batch=batch, seed=seed)


def as_text(
    inputs_T: np.ndarray, name: Name, *, fold: int, words: int = 20_000, folder: locate.PathLike | None = None
) -> str:
    """The words of one example's inputs; "?" for unknown ones."""
    choices.check("sentences", "name", name, Name)
    word = dict(enumerate(_words(locate.folder(f"nltk_{SETS[name].package}", folder), name, fold, words), 2))
    return " ".join(word.get(i, "?") for i in inputs_T.tolist() if i)


def as_tokens(
    text: str, name: Name, *, fold: int, words: int = 20_000, folder: locate.PathLike | None = None
) -> list[int]:
    """The tokens of any text, split into words and marks in lower case as the data is; see sentences."""
    choices.check("sentences", "name", name, Name)
    known = tuple(_words(locate.folder(f"nltk_{SETS[name].package}", folder), name, fold, words))
    return [_numbers(known).get(word, UNKNOWN) for word in SPLIT.findall(text.lower())]


@lru_cache(maxsize=4)
def _numbers(known: tuple[str, ...]) -> dict[str, int]:
    return {word: i for i, word in enumerate(known, 2)}


@cache
def _fold(folder: Path, name: Name, fold: int) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
    """(all sentences, their labels, whether each is held out)."""
    texts, label = _read(folder, name)
    return texts, label, permute(np.arange(len(texts)), len(texts), 0) % FOLDS == fold


def _words(folder: Path, name: Name, fold: int, words: int) -> list[str]:
    """The most common words of the sentences that are not held out."""

    def most_common() -> list[str]:
        texts, _, held = _fold(folder, name, fold)
        counts = Counter(word for i in np.flatnonzero(~held) for word in texts[i])
        return [word for word, count in counts.most_common(words - 2) if count > 1]

    return learned(f"{name}: the {words} commonest words of fold {fold}", most_common)


@cache
def _read(folder: Path, name: Name) -> tuple[list[list[str]], np.ndarray]:
    """All sentences as words, those of class 0 first, and their classes (int32)."""
    package, names, each, encoding = SETS[name]
    path = folder / f"{package}.zip"
    locate.check(folder, {path.name: (None, None)}, where=WHERE)
    texts: list[list[str]] = []
    with reading(
        f"{path} is not what NLTK packs", f"two files of {each:,} sentences", f"Get it from {WHERE}"
    ):
        contents = members(path, lambda name: name in [f"{package}/{each}" for each in names], limit=1 << 26)
        for member in names:
            text = contents[f"{package}/{member}"].decode(encoding)
            lines = [line.lower().split() for line in text.removesuffix("\n").split("\n")]
            if len(lines) != each:
                raise ValueError(f"{member} of {len(lines):,} sentences")
            texts += lines
    return texts, np.repeat(np.arange(2, dtype=np.int32), each)
