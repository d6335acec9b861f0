"""A transcriber from a folder: Hugging Face's or CTranslate2's Whisper, with its tokenizer."""

from __future__ import annotations

import os
from pathlib import Path

import jax.numpy as jnp

from jaxmodels.convert.load import hears, load_pretrained
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.speech.symbols import Symbols
from jaxmodels.speech.transcriber import Transcriber


def open_transcriber(folder: str | os.PathLike[str], *, precision: str = "float32") -> Transcriber:
    """The model of a folder of Whisper. precision: of its parameters and products."""
    folder = Path(folder)
    if not hears(folder):
        raise ValueError(
            f"{folder}: got no model that transcribes; expected a folder of Whisper, of Hugging Face or "
            "CTranslate2. Give another; a run's recogniser is asked by jaxmodels predict."
        )
    model, params, _, config = load_pretrained(folder, dtype=jnp.dtype(precision))
    tokenizer = Tokenizer.load(folder)
    path = folder / "generation_config.json"
    settings = {**config, **(read_object(path) if path.is_file() else {})}
    try:
        symbols = Symbols.of(tokenizer.token, tokenizer.decode, model.vocabulary, settings)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error
    return Transcriber(model, params, symbols, tokenizer.decode)
