"""SQuAD v1.1's development set: 10,570 questions on 48 articles; the answers are spans (arXiv:1606.05250; CC BY-SA 4.0).

Articles 0 to 37 train, 38 to 47 test: a split of ours, so results do not compare with those of models that
saw the real training set. A context that is too long for the model is cut into windows that overlap.
Dimensions: B examples (windows), T tokens.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate as files
from jaxmodels.data.archive import members
from jaxmodels.data.formats.json_file import parse_object
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.data.unpack import reading

FILES: dict[str, tuple[int, str | None]] = {
    "dev-v1.1.json.zip": (1051741, "6cf38c56fc7341bab8a5132f205dd7198148a6be9073ccd8ef07d55ca73b09b7")
}
WHERE = "https://rajpurkar.github.io/SQuAD-explorer/ (dev-v1.1.json, zipped)"
ARTICLES = {"train": range(38), "test": range(38, 48)}

Split = Literal["train", "test"]
PathLike = str | os.PathLike[str]
Encode = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]


class Question(NamedTuple):
    """A question, its context, and its answers with the places of their first letters."""

    id: str
    text: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


class Windows(NamedTuple):
    """What a model sees, and what turns its spans into text again."""

    arrays: dict[str, np.ndarray]
    letters_BT2: np.ndarray  # where each token of the context begins and ends in it


def questions(split: Split, folder: PathLike | None = None) -> list[Question]:
    """All questions of one side of the split."""
    choices.check("squad", "split", split, ARTICLES)
    return _read(files.folder("squad11_dev", folder), split)


@cache
def _read(folder: Path, split: Split) -> list[Question]:
    files.check(folder, FILES, where=WHERE)
    path = folder / "dev-v1.1.json.zip"
    with reading(f"{path} is not SQuAD's", "dev-v1.1.json with its articles", f"Get it from {WHERE}"):
        return _parse(members(path, limit=1 << 28)["dev-v1.1.json"], split)


def _parse(text: bytes, split: Split) -> list[Question]:
    articles = parse_object(text, Path("dev-v1.1.json"))["data"]
    found = []
    for number in ARTICLES[split]:
        for paragraph in articles[number]["paragraphs"]:
            for asked in paragraph["qas"]:
                texts = tuple(answer["text"] for answer in asked["answers"])
                starts = tuple(answer["answer_start"] for answer in asked["answers"])
                words = (asked["id"], asked["question"], paragraph["context"], *texts)
                if (
                    not texts
                    or not all(isinstance(x, str) for x in words)
                    or not all(isinstance(x, int) for x in starts)
                ):
                    raise ValueError(f"a question that is no text with answers, {reprlib.repr(asked)}")
                found.append(Question(asked["id"], asked["question"], paragraph["context"], texts, starts))
    return found


class Squad:
    """One side of the split for a tokenizer: a pipeline, and the texts that a model's predictions stand for.

    encode: a text as (tokens, (begin, end) letters of each), without tokens that begin or end it. first,
    between: those tokens, as in [CLS] question [SEP] context [SEP]. length: tokens of a window. stride:
    tokens of the context by which the windows move.
    """

    def __init__(
        self,
        split: Split,
        *,
        encode: Encode,
        first: int,
        between: int,
        padding: int = 0,
        length: int = 384,
        stride: int = 128,
        asked: int = 64,
        folder: PathLike | None = None,
    ):
        choices.check("squad", "split", split, ARTICLES)
        if stride < 1 or length - asked - 3 < stride:
            raise ValueError(
                f"squad: came windows of {length} tokens that move by {stride}, with questions of up to {asked}; "
                "wanted a stride from 1 to what is left for the context: make the windows longer or the stride shorter"
            )
        self.split, self.folder, self.encode, self.length, self.stride = split, folder, encode, length, stride
        self.first, self.between, self.padding, self.asked = first, between, padding, asked
        self._windows: Windows | None = None

    def pipeline(self, batch: int, seed: int | None = None) -> ArrayPipeline:
        """Batches for tasks.span, and "question" and "window", the places of both in their lists."""
        row, number = ((self.length,), np.dtype(np.int32)), ((), np.dtype(np.int32))
        rows = dict.fromkeys(("inputs", "segments", "types", "context"), row)
        numbers = dict.fromkeys(("start", "end", "question", "window"), number)
        return ArrayPipeline(lambda: self.windows().arrays, batch=batch, seed=seed, spec={**rows, **numbers})

    def questions(self) -> list[Question]:
        """All questions."""
        return questions(self.split, self.folder)

    def windows(self) -> Windows:
        """All windows; made once."""
        if self._windows is None:
            self._windows = self._cut(self.questions())
        return self._windows

    def answers(self) -> dict[str, tuple[str, ...]]:
        """The right answers by question."""
        return {question.id: question.answers for question in self.questions()}

    def texts(
        self, predictions: Sequence[Mapping[str, Any]], batches: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        """Answers by question of what tasks.span.predict gives: of each, its best window's span."""
        letters_BT2, asked = self.windows().letters_BT2, self.questions()
        best: dict[int, float] = {}
        texts: dict[str, str] = {}
        for prediction, batch in zip(predictions, batches, strict=True):
            columns = (
                batch["question"],
                batch["window"],
                prediction["start"],
                prediction["end"],
                prediction["score"],
            )
            for number, window, start, end, sure in zip(*columns, strict=True):
                if sure > best.get(int(number), -np.inf):
                    best[int(number)] = float(sure)
                    question = asked[number]
                    texts[question.id] = question.context[
                        letters_BT2[window, start, 0] : letters_BT2[window, end, 1]
                    ]
        return texts

    def _cut(self, asked: list[Question]) -> Windows:
        known: dict[str, tuple[Sequence[int], np.ndarray]] = {}
        rows: list[dict[str, Any]] = []
        for number, question in enumerate(asked):
            if question.context not in known:
                tokens, letters = self.encode(question.context)
                known[question.context] = tokens, np.asarray(letters, np.int32).reshape(-1, 2)
            tokens, places = known[question.context]
            head = [self.first, *list(self.encode(question.text)[0])[: self.asked], self.between]
            room = self.length - len(head) - 1
            last = max(0, len(tokens) - room)
            for begin in [*range(0, last, self.stride), last]:
                part = places[begin : begin + room]
                start, end = _place(part, question)
                rows.append(
                    {
                        "tokens": [*head, *tokens[begin : begin + room], self.between],
                        "head": len(head),
                        "letters": part,
                        "start": len(head) + start,
                        "end": len(head) + end,
                        "weight": float(start >= 0),
                        "question": number,
                    }
                )
        return self._arrays(rows)

    def _arrays(self, rows: list[dict[str, Any]]) -> Windows:
        names = ("segments", "types", "context")
        arrays: dict[str, np.ndarray] = {name: np.zeros((len(rows), self.length), np.int32) for name in names}
        arrays["inputs"] = np.full((len(rows), self.length), self.padding, np.int32)
        letters_BT2 = np.zeros((len(rows), self.length, 2), np.int32)
        for i, row in enumerate(rows):
            head, T, n = row["head"], len(row["tokens"]), len(row["letters"])
            arrays["inputs"][i, :T] = row["tokens"]
            arrays["segments"][i, :T] = 1
            arrays["types"][i, head:T] = 1
            arrays["context"][i, head : head + n] = 1
            letters_BT2[i, head : head + n] = row["letters"]
        for name in ("start", "end", "question"):
            arrays[name] = np.array([row[name] for row in rows], np.int32)
        arrays["window"] = np.arange(len(rows), dtype=np.int32)
        arrays["weight"] = np.array([row["weight"] for row in rows], np.float32)
        return Windows(arrays, letters_BT2)


def _place(letters_T2: np.ndarray, question: Question) -> tuple[int, int]:
    """First and last token of the first answer; (-1, -1) where the window has not all of it."""
    begin = question.starts[0]
    end = begin + len(question.answers[0])
    if not len(letters_T2) or letters_T2[0, 0] > begin or letters_T2[-1, 1] < end:
        return -1, -1
    touched = np.flatnonzero((letters_T2[:, 1] > begin) & (letters_T2[:, 0] < end))
    return (int(touched[0]), int(touched[-1])) if len(touched) else (-1, -1)


def best_sentences(split: Split, folder: PathLike | None = None) -> dict[str, str]:
    """By question the sentence of its context that shares most words with it, as an answer."""
    texts = {}
    for question in questions(split, folder):
        words = set(question.text.lower().rstrip("?").split())
        sentences = question.context.split(". ")
        texts[question.id] = max(sentences, key=lambda sentence: len(words & set(sentence.lower().split())))
    return texts
