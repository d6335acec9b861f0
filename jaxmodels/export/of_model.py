"""The program of a loaded model: what its predictor answers, or the logits of its language model."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmodels.data.formats.json_file import once
from jaxmodels.export.program import Program
from jaxmodels.inference.model import Model
from jaxmodels.interfaces import Decoder, Predictor
from jaxmodels.runs.learned import read_learned

WORDS = tuple(4**n for n in range(7))  # of the texts that show which lengths a text model takes


def program_of(model: Model, like: Sequence[Any] = ()) -> Program:
    """What is exported of a model. like: inputs; axes in which their arrays differ are of any size."""
    about = about_of(model)
    if model.predictor is None and model.decoder is not None:
        return _language_model(model, model.decoder, about, like)
    predictor = model.require_predictor()
    examples = _examples(predictor, like)
    return Program(predictor.predict, model.params, model.extra, examples, about)


def about_of(model: Model) -> dict[str, Any]:
    """What somebody elsewhere has to know of a model besides its parameters, as JSON."""
    about: dict[str, Any] = {"model": model.name}
    if model.step is not None:
        values = read_learned(model.source)
        learned = {name: x for name, x in values.items() if not name.startswith("pipeline ")}
        about |= {"step": model.step, "learned": learned}
    if model.predictor is not None:
        about |= {"input": model.predictor.input, **model.predictor.settings()}
    return about


def _language_model(model: Model, decoder: Decoder, about: dict[str, Any], like: Sequence[Any]) -> Program:
    """Logits of the token after each token, for texts of any length that the model takes."""
    if model.adapters:
        raise ValueError(
            f"export: got the adapters {', '.join(model.adapters)} kept apart from their base; expected one "
            "that is merged. Load the model with adapter="
        )
    logits = decoder.logits
    if logits is None:
        raise ValueError(
            f"export: got {model.name}, whose decoder gives no logits of whole texts; expected "
            "Decoder.logits. Make the decoder with jaxmodels.tasks.language, or give it this function"
        )
    if like:
        raise ValueError(
            "--like: got inputs for a language model; expected none, as it takes texts of any length. Leave "
            "them out"
        )

    def function(params: Any, extra: Any, batch: Mapping[str, Any]) -> dict[str, Any]:
        return {"logits": logits(params, extra, batch)}

    def example(length: int) -> dict[str, np.ndarray]:
        tokens = {"tokens": np.zeros(length, np.int32)}
        source = {"source": np.zeros(length + 1, np.int32), "source_segments": np.ones(length + 1, np.int32)}
        return {**source, **tokens} if decoder.source else tokens

    shape = jax.eval_shape(
        function, model.params, model.extra, {key: x[None] for key, x in example(1).items()}
    )["logits"]
    random = np.random.default_rng(0)
    examples: list[Mapping[str, np.ndarray]] = []
    for length in sorted({1, min(5, decoder.length), decoder.length}):
        zeros = example(length)
        examples.append(
            {
                key: x if key == "source_segments" else random.integers(0, shape.shape[-1], len(x), np.int32)
                for key, x in zeros.items()
            }
        )
    special = {"begin": decoder.begin, "end": list(decoder.ends)}
    about |= {"input": "text", "vocabulary": shape.shape[-1], **special}
    return Program(function, model.params, model.extra, examples, about)


def _examples(predictor: Predictor, like: Sequence[Any]) -> list[Mapping[str, np.ndarray]]:
    """The arrays of the inputs that are given, else of made-up ones."""
    if like:
        return [_arrays(predictor, given) for given in like]
    if predictor.input == "text":
        return _texts(predictor)
    if predictor.input == "row":
        raise ValueError(
            f"export: got a model of rows with {', '.join(predictor.fields)}; expected one row, which shows "
            "the types of its arrays. Give it with --like, as JSON"
        )
    made = _pictures() if predictor.input == "image" else _sounds()
    try:
        return [_arrays(predictor, file) for file in made]
    except ValueError as error:
        raise ValueError(
            f"export: got a model that cannot use a made-up {predictor.input} ({error}); expected one. Give "
            "an input with --like"
        ) from error


def _arrays(predictor: Predictor, given: Any) -> dict[str, np.ndarray]:
    if predictor.input == "row" and isinstance(given, str):
        given = _row(given)
    return {key: np.asarray(x) for key, x in predictor.read(given).items()}


def _row(text: str) -> dict[str, Any]:
    """A row as it is written on a command line."""
    try:
        row = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError):
        row = None
    if not isinstance(row, dict):
        raise ValueError(
            f"--like: got {text[:80]!r}; expected a row as a JSON object, such as "
            '\'{"area": 100, "city": "Oslo"}\'. Write one'
        )
    return row


def _texts(predictor: Predictor) -> list[Mapping[str, np.ndarray]]:
    """One example of each length that texts are padded to."""
    found: dict[Any, Mapping[str, np.ndarray]] = {}
    for words in WORDS:
        try:
            example = _arrays(predictor, " ".join(["the house"] * words))
        except ValueError:
            if not found:
                raise
            break  # longer texts are refused
        found.setdefault(tuple(x.shape for x in example.values()), example)
    return list(found.values())


def _pictures() -> list[Any]:
    """Noise in three colours, of two sizes."""
    from jaxmodels.runs.png import encode_png

    random = np.random.default_rng(0)
    sizes = (96, 128), (160, 120)
    return [io.BytesIO(encode_png(random.integers(0, 256, (*size, 3), np.uint8))) for size in sizes]


def _sounds() -> list[Any]:
    """Noise of one second, and of two."""
    from jaxmodels.data.formats.audio import wav

    random = np.random.default_rng(0)
    return [
        io.BytesIO(wav(random.uniform(-0.5, 0.5, seconds * 16_000).astype(np.float32), 16_000))
        for seconds in (1, 2)
    ]
