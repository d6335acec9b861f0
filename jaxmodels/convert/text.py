"""A text model from a Hugging Face folder or a llama2.c file, ready to write and to be scored."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.tokenizer import Tokenizer
from jaxmodels.task import Decoder, Task
from jaxmodels.tasks.language import decoder, next_token

BEGINS = {"llama", "mistral", "mixtral"}  # kinds of models that were trained with a first token before every text


class TextModel(NamedTuple):
    """A language model with its parameters, its task and what decoding needs."""

    model: nn.Module
    params: Any
    task: Task
    decoder: Decoder


def open_text_model(folder: str | os.PathLike[str]) -> TextModel:
    """The language model of a folder with config.json, weights and a tokenizer."""
    model, params, config = load_pretrained(folder)
    if not hasattr(model, "start"):
        raise ValueError(
            f"{folder} holds a {config['model_type']}, which does not write text; wanted one that does, as gpt2 or llama"
        )
    tokenizer = Tokenizer.load(folder)
    begin = _token(config, "bos_token_id", Path(folder)) if config["model_type"] in BEGINS else None
    made = decoder(
        model,
        encode=tokenizer.encode,
        decode=tokenizer.decode,
        begin=begin,
        end=_token(config, "eos_token_id", Path(folder)),
    )
    return TextModel(model, params, next_token(model), made)


def _token(config: Mapping[str, Any], name: str, folder: Path) -> int | None:
    """A special token's number; of several the first."""
    value = config.get(name)
    if isinstance(value, list) and value:
        value = value[0]
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise ValueError(f"{folder / 'config.json'}: {name} is {value!r}; wanted the number of a token; mend the file")
    return value
