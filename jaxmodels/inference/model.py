"""A trained model, ready to be asked. Inputs are what people have: images, texts, rows of a table, sounds.

    inputs ──predictor.read──► arrays of one example each ──grouped by shape──► batches ──predict──► answers

A batch has as many rows as a power of two; all batches of one shape have as many in one call, so that each
shape is compiled once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmodels.interfaces import Decoder, Predictor
from jaxmodels.task import Task

LARGEST = 64  # examples of a batch
CHUNK = 1024  # inputs that are held at once, unless they are large
CHUNK_BYTES = 256 << 20  # of the arrays of a chunk


class Answer(NamedTuple):
    """What a model says of one input."""

    values: dict[str, Any]  # by name, as JSON; {} where the input could not be used
    arrays: Any  # the prediction, as numpy, without the example axis; None likewise
    error: str = ""  # why the input could not be used


Example = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False)
class Model:
    """A model with its parameters; see jaxmodels.load. It predicts, generates text, or both."""

    source: Path
    """The run's folder, or the weights."""
    params: Any
    extra: Any
    predictor: Predictor | None = None
    decoder: Decoder | None = None
    task: Task | None = None
    """That of training, whose requirements inputs must meet."""
    step: int | None = None
    """Of the run's checkpoint."""
    adapters: tuple[str, ...] = ()
    """Names of those that the decoder's rows may have."""
    transcriber: Any = None
    """jaxmodels.speech.transcriber.Transcriber of a model that writes what is said in recordings."""

    @property
    def name(self) -> str:
        """The last part of the source's path."""
        return self.source.resolve().name

    def __call__(self, inputs: Iterable[Any]) -> list[Answer]:
        """An answer for each input, in order; see Predictor.input for what an input is."""
        return list(self.stream(inputs))

    def stream(self, inputs: Iterable[Any]) -> Iterator[Answer]:
        """The same one after another; of any number of inputs only the next CHUNK are held in memory.

        An input that is a ValueError, of a row that could not be read, say, is answered with its text.
        """
        self.require_predictor()
        chunk: list[Example | str] = []
        size, many = 0, False
        for n, given in enumerate(inputs, 1):
            chunk.append(example := self._read(given, n))
            size += 0 if isinstance(example, str) else sum(x.nbytes for x in example.values())
            if len(chunk) >= CHUNK or (len(chunk) >= LARGEST and size >= CHUNK_BYTES):
                many = True
                yield from self._answers(chunk, LARGEST)
                chunk, size = [], 0
        yield from self._answers(chunk, LARGEST if many else 1)

    def require_predictor(self) -> Predictor:
        """The predictor; a ValueError where the model has none."""
        if self.predictor is None:
            also = "; this one generates text: jaxmodels generate" if self.decoder is not None else ""
            raise ValueError(
                f"{self.source}: got an experiment whose build() gives no predictor; expected one, to read "
                f"inputs{also}. See jaxmodels.interfaces.Predictor"
            )
        return self.predictor

    def require_decoder(self) -> Decoder:
        """The decoder; a ValueError where the model has none."""
        if self.decoder is None:
            raise ValueError(
                f"{self.source}: got an experiment whose build() gives no decoder; expected one, to generate "
                "text. See jaxmodels.tasks.language"
            )
        return self.decoder

    @cached_property
    def _program(self) -> Any:
        return jax.jit(self.require_predictor().predict)

    def _read(self, given: Any, number: int) -> Example | str:
        """The arrays of an input, or why it cannot be used. number: counted from 1."""
        from jaxmodels.training.check_batches import check_read

        predictor = self.require_predictor()
        try:
            _check(predictor, given)
            example = {key: np.asarray(x) for key, x in predictor.read(given).items()}
            if self.task is not None:
                check_read(self.task, {key: x[None] for key, x in example.items()}, f"input {number}")
        except (ValueError, OSError) as error:
            return str(error) or type(error).__name__
        return example

    def _answers(self, chunk: Sequence[Example | str], least: int) -> list[Answer]:
        """The answers to a chunk. least: rows of a batch."""
        report = self.require_predictor().report
        answers: dict[int, Answer] = {}
        groups: dict[Any, list[tuple[int, Example]]] = {}
        for n, example in enumerate(chunk):
            if isinstance(example, str):
                answers[n] = Answer({}, None, example)
                continue
            shapes = tuple((key, x.shape, x.dtype.str) for key, x in sorted(example.items()))
            groups.setdefault(shapes, []).append((n, example))
        for group in groups.values():
            rows = max(least, min(LARGEST, 1 << (len(group) - 1).bit_length()))
            for start in range(0, len(group), rows):
                part = group[start : start + rows]
                predictions = self._predict([example for _, example in part], rows)
                for (n, _), prediction in zip(part, predictions, strict=True):
                    answers[n] = Answer(report(prediction), prediction)
        return [answers[n] for n in range(len(chunk))]

    def _predict(self, examples: Sequence[Example], rows: int) -> list[Any]:
        """The predictions of examples of equal shapes, as a batch of so many rows."""
        padded = [*examples, *[examples[-1]] * (rows - len(examples))]
        batch = {key: np.stack([example[key] for example in padded]) for key in examples[0]}
        outputs = jax.tree.map(np.asarray, self._program(self.params, self.extra, batch))
        return [jax.tree.map(lambda x, n=n: x[n], outputs) for n in range(len(examples))]


def _check(predictor: Predictor, given: Any) -> None:
    """Raises ValueError for an input of another kind than the predictor reads."""
    if isinstance(given, ValueError):
        raise given
    kind = predictor.input
    if kind == "text":
        if not isinstance(given, str):
            raise ValueError(f"got a {type(given).__name__}; expected a text. Give a str")
        if not given.strip():
            raise ValueError("got an empty text; expected some words. Write them, or leave it out")
    elif kind == "row":
        if not isinstance(given, Mapping):
            raise ValueError(
                f"got a {type(given).__name__}; expected a row with {_listed(predictor.fields)}. Give a dict"
            )
        if missing := [name for name in predictor.fields if name not in given]:
            raise ValueError(
                f"got a row without {_listed(missing)}; expected the columns {_listed(predictor.fields)}. "
                "Add what is missing"
            )


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(map(repr, names[:most])) + " …" * (len(names) > most)
