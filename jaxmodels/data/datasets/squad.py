"""SQuAD v1.1's development set: 10,570 questions on 48 articles; the answers are spans (arXiv:1606.05250;
CC BY-SA 4.0).

Articles 0 to 37 train, 38 to 47 test: our own split, so results do not compare with those of models trained
on the official training set. A context that is too long for the model is divided into overlapping windows.
Dimensions: B examples (windows), T tokens.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.data.archive import members
from jaxmodels.data.formats.json_file import parse_object
from jaxmodels.data.formats.text_input import window_begins
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.data.unpack import reading

FILES: locate.Files = {
    "dev-v1.1.json.zip": (1051741, "6cf38c56fc7341bab8a5132f205dd7198148a6be9073ccd8ef07d55ca73b09b7")
}
WHERE = "https://rajpurkar.github.io/SQuAD-explorer/ (dev-v1.1.json, zipped)"
ARTICLES = {"train": range(38), "test": range(38, 48)}

Split = Literal["train", "test"]
Encode = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]


class Question(NamedTuple):
    """A question, its context, and its answers with the indices of their first characters."""

    id: str
    text: str
    context: str
    answers: tuple[str, ...]
    starts: tuple[int, ...]


class Windows(NamedTuple):
    """The arrays for a model, and the characters of each token, which turn its spans into text."""

    arrays: dict[str, np.ndarray]
    characters_BT2: np.ndarray  # begin and end of each token of the context


def questions(split: Split, folder: locate.PathLike | None = None) -> list[Question]:
    """All questions of a split."""
    choices.check("squad", "split", split, ARTICLES)
    return _read(locate.folder("squad11_dev", folder), split)


@cache
def _read(folder: Path, split: Split) -> list[Question]:
    locate.check(folder, FILES, where=WHERE)
    path = folder / "dev-v1.1.json.zip"
    with reading(f"{path} is not SQuAD's", "dev-v1.1.json with its articles", f"Get it from {WHERE}"):
        return _parse(members(path, limit=1 << 28)["dev-v1.1.json"], split)


def _parse(text: bytes, split: Split) -> list[Question]:
    articles = parse_object(text, Path("dev-v1.1.json"))["data"]
    questions = []
    for number in ARTICLES[split]:
        for paragraph in articles[number]["paragraphs"]:
            for entry in paragraph["qas"]:
                answers = tuple(answer["text"] for answer in entry["answers"])
                starts = tuple(answer["answer_start"] for answer in entry["answers"])
                texts = (entry["id"], entry["question"], paragraph["context"], *answers)
                are_texts = all(isinstance(text, str) for text in texts)
                if not answers or not are_texts or not all(isinstance(start, int) for start in starts):
                    raise ValueError(f"a question that is no text with answers, {reprlib.repr(entry)}")
                question = Question(entry["id"], entry["question"], paragraph["context"], answers, starts)
                questions.append(question)
    return questions


class Squad:
    """A split for a tokenizer: a pipeline, and the texts of a model's predicted spans.

    encode: a text as (tokens, (begin, end) characters of each), without tokens that begin or end it.
    first, between: those tokens, as in [CLS] question [SEP] context [SEP].
    length: tokens of a window.
    stride: tokens of the context from one window's start to the next.
    asked: tokens of a question at most; a longer one is truncated.
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
        folder: locate.PathLike | None = None,
    ):
        choices.check("squad", "split", split, ARTICLES)
        if stride < 1 or length - asked - 3 < stride:
            raise ValueError(
                f"squad: got windows of {length} tokens with stride={stride}, and questions of up to {asked} "
                "tokens; expected a stride from 1 to the tokens left for the context. Make the windows "
                "longer or the stride shorter"
            )
        self.split, self.folder, self.encode, self.length, self.stride = split, folder, encode, length, stride
        self.first, self.between, self.padding, self.asked = first, between, padding, asked
        self._windows: Windows | None = None

    def pipeline(self, batch: int, seed: int | None = None) -> ArrayPipeline:
        """Batches for tasks.question_answering, with "question" and "window", the indices of both (int32)."""
        int32 = np.dtype(np.int32)
        rows = dict.fromkeys(("inputs", "segments", "types", "context"), ((self.length,), int32))
        scalars = dict.fromkeys(("start", "end", "question", "window"), ((), int32))
        return ArrayPipeline(lambda: self.windows().arrays, batch=batch, seed=seed, spec={**rows, **scalars})

    def questions(self) -> list[Question]:
        """All questions."""
        return questions(self.split, self.folder)

    def windows(self) -> Windows:
        """All windows, made once."""
        if self._windows is None:
            self._windows = self._make_windows(self.questions())
        return self._windows

    def answers(self) -> dict[str, tuple[str, ...]]:
        """The correct answers by the question's id."""
        return {question.id: question.answers for question in self.questions()}

    def texts(
        self, predictions: Sequence[Mapping[str, Any]], batches: Sequence[Mapping[str, Any]]
    ) -> dict[str, str]:
        """Answers by the question's id from predictions of tasks.question_answering: its best window's
        span."""
        characters_BT2, questions = self.windows().characters_BT2, self.questions()
        best: dict[int, float] = {}
        texts: dict[str, str] = {}
        for prediction, batch in zip(predictions, batches, strict=True):
            rows = zip(
                *(batch[name] for name in ("question", "window")),
                *(prediction[name] for name in ("start", "end", "score")),
                strict=True,
            )
            for number, window, start, end, score in rows:
                if score > best.get(int(number), -np.inf):
                    best[int(number)] = float(score)
                    question = questions[number]
                    first, last = characters_BT2[window, start, 0], characters_BT2[window, end, 1]
                    texts[question.id] = question.context[first:last]
        return texts

    def _make_windows(self, questions: list[Question]) -> Windows:
        contexts: dict[str, tuple[Sequence[int], np.ndarray]] = {}
        rows: list[dict[str, Any]] = []
        for number, question in enumerate(questions):
            if question.context not in contexts:
                tokens, characters = self.encode(question.context)
                contexts[question.context] = tokens, np.asarray(characters, np.int32).reshape(-1, 2)
            tokens, characters_T2 = contexts[question.context]
            head = [self.first, *list(self.encode(question.text)[0])[: self.asked], self.between]
            room = self.length - len(head) - 1
            for begin in window_begins(len(tokens), room, self.stride):
                window_T2 = characters_T2[begin : begin + room]
                start, end = answer_span(window_T2, question)
                rows.append(
                    {
                        "tokens": [*head, *tokens[begin : begin + room], self.between],
                        "head": len(head),
                        "characters": window_T2,
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
        characters_BT2 = np.zeros((len(rows), self.length, 2), np.int32)
        for i, row in enumerate(rows):
            head, T, n = row["head"], len(row["tokens"]), len(row["characters"])
            arrays["inputs"][i, :T] = row["tokens"]
            arrays["segments"][i, :T] = 1
            arrays["types"][i, head:T] = 1
            arrays["context"][i, head : head + n] = 1
            characters_BT2[i, head : head + n] = row["characters"]
        for name in ("start", "end", "question"):
            arrays[name] = np.array([row[name] for row in rows], np.int32)
        arrays["window"] = np.arange(len(rows), dtype=np.int32)
        arrays["weight"] = np.array([row["weight"] for row in rows], np.float32)
        return Windows(arrays, characters_BT2)


def answer_span(characters_T2: np.ndarray, question: Question) -> tuple[int, int]:
    """First and last token of the first answer; (-1, -1) where the window does not hold all of it."""
    begin = question.starts[0]
    end = begin + len(question.answers[0])
    if not len(characters_T2) or characters_T2[0, 0] > begin or characters_T2[-1, 1] < end:
        return -1, -1
    overlapping = np.flatnonzero((characters_T2[:, 1] > begin) & (characters_T2[:, 0] < end))
    return (int(overlapping[0]), int(overlapping[-1])) if len(overlapping) else (-1, -1)


def best_sentences(split: Split, folder: locate.PathLike | None = None) -> dict[str, str]:
    """A baseline, by the question's id: the sentence of the context that shares most words with the
    question."""
    texts = {}
    for question in questions(split, folder):
        words = set(question.text.lower().rstrip("?").split())
        sentences = question.context.split(". ")
        texts[question.id] = max(sentences, key=lambda sentence: len(words & set(sentence.lower().split())))
    return texts
