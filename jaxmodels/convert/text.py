"""A text model from a Hugging Face folder or a llama2.c file, ready to write and to be scored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from jaxmodels.convert.llama2c import Vocabulary, load_vocabulary
from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.tokenizer import Tokenizer
from jaxmodels.task import Decoder, Task
from jaxmodels.tasks import language, translate

BEGINS = {"llama", "mistral", "mixtral"}  # kinds of models that were trained with a first token before every text


class TextModel(NamedTuple):
    """A model with its parameters, its task and what decoding needs."""

    model: nn.Module
    params: Any
    task: Task
    decoder: Decoder


def open_text_model(folder: str | os.PathLike[str]) -> TextModel:
    """The model of a folder with config.json, weights and a tokenizer; or of a llama2.c file with its tokenizer beside it.

    One with an encoder, as T5, writes what it makes of a source.
    """
    model, params, _, config = load_pretrained(folder)
    if not hasattr(model, "start"):
        raise ValueError(
            f"{folder} holds a {config['model_type']}, which does not write text; wanted one that does, as gpt2 or llama"
        )
    folder = Path(folder)
    tokenizer = _vocabulary(folder, model) if folder.is_file() else Tokenizer.load(folder)
    end = _token(config, "eos_token_id", folder)
    if hasattr(model, "encode"):
        begin = _token(config, "decoder_start_token_id", folder)
        if begin is None or end is None:
            raise ValueError(
                f"{folder / 'config.json'}: decoder_start_token_id is {begin} and eos_token_id {end}; wanted the numbers of "
                "two tokens; mend the file"
            )
        written = lambda text: [*tokenizer.encode(text), end]  # noqa: E731
        made = translate.decoder(model, encode=written, decode=tokenizer.decode, begin=begin, end=end)
        return TextModel(model, params, translate.translate(model), made)
    begin = _token(config, "bos_token_id", folder) if config["model_type"] in BEGINS else None
    made = language.decoder(model, encode=tokenizer.encode, decode=tokenizer.decode, begin=begin, end=end)
    return TextModel(model, params, language.next_token(model), made)


def _vocabulary(path: Path, model: Any) -> Vocabulary:
    """The tokenizer of a llama2.c file, by the names that the program knows."""
    places = [path.with_name(name) for name in (f"tok{model.vocabulary}.bin", "tokenizer.bin")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"there is neither {places[0].name} nor {places[1].name} beside {path}; wanted its tokenizer; put it there"
        )
    return load_vocabulary(found, model.vocabulary)


def _token(config: Mapping[str, Any], name: str, folder: Path) -> int | None:
    """A special token's number; of several the first."""
    value = config.get(name)
    if isinstance(value, list) and value:
        value = value[0]
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"{folder / 'config.json'}: {name} is {value!r}; wanted the number of a token; mend the file")
    return value
