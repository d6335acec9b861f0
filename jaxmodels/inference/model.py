"""A trained model, ready to be asked. Inputs are what people have: images, texts, rows of a table, sounds.

    inputs ──predictor.read──► arrays of one example each ──grouped by shape──► batches ──predict──► answers

Batches have as many examples as a power of two, so that few programs serve any number of inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmodels.interfaces import Decoder, Predictor
from jaxmodels.task import Task

LARGEST = 64  # examples of a batch


class Answer(NamedTuple):
    """What a model says of one input."""

    values: dict[str, Any]  # by name, as JSON; {} where the input could not be used
    arrays: Any  # the prediction, as numpy, without the example axis; None likewise
    error: str = ""  # why the input could not be used


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

    @property
    def name(self) -> str:
        """The last part of the source's path."""
        return self.source.resolve().name

    def __call__(self, inputs: Iterable[Any]) -> list[Answer]:
        """An answer for each input, in order; see Predictor.input for what an input is."""
        from jaxmodels.training.check_batches import check_read

        predictor = self.require_predictor()
        answers: list[Answer | None] = []
        groups: dict[Any, list[tuple[int, dict[str, np.ndarray]]]] = {}
        for n, given in enumerate(inputs):
            answers.append(None)
            try:
                example = {key: np.asarray(x) for key, x in predictor.read(given).items()}
                if self.task is not None:
                    check_read(self.task, {key: x[None] for key, x in example.items()}, f"input {n + 1}")
            except (ValueError, OSError) as error:
                answers[n] = Answer({}, None, str(error))
                continue
            shapes = tuple((key, x.shape, x.dtype.str) for key, x in sorted(example.items()))
            groups.setdefault(shapes, []).append((n, example))
        for group in groups.values():
            for start in range(0, len(group), LARGEST):
                part = group[start : start + LARGEST]
                predictions = self._predict([example for _, example in part])
                for (n, _), prediction in zip(part, predictions, strict=True):
                    answers[n] = Answer(predictor.report(prediction), prediction)
        assert None not in answers
        return answers  # type: ignore[return-value]

    def require_predictor(self) -> Predictor:
        """The predictor; a ValueError where the model has none."""
        if self.predictor is None:
            raise ValueError(
                f"{self.source}: got an experiment whose build() gives no predictor; expected one, to read "
                "inputs. See jaxmodels.interfaces.Predictor"
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

    def _predict(self, examples: Sequence[dict[str, np.ndarray]]) -> list[Any]:
        """The predictions of examples of equal shapes."""
        rows = 1 << (len(examples) - 1).bit_length()
        padded = [*examples, *[examples[-1]] * (rows - len(examples))]
        batch = {key: np.stack([example[key] for example in padded]) for key in examples[0]}
        outputs = jax.tree.map(np.asarray, self._program(self.params, self.extra, batch))
        return [jax.tree.map(lambda x, n=n: x[n], outputs) for n in range(len(examples))]
