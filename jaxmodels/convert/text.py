"""A text model from a Hugging Face folder or a llama2.c file, ready to write and to be scored."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from jaxmodels.convert.generation_config import Asked
from jaxmodels.convert.llama2c import Vocabulary, load_vocabulary
from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.data.formats.tokenizer_settings import read_settings
from jaxmodels.interfaces import Decoder
from jaxmodels.task import Task
from jaxmodels.tasks import language, translate

# Where no file of the tokenizer says it: kinds of models whose own tokenizer puts a first token before every
# text.
BEGINS = {"llama", "mistral", "mixtral"}
BEGINNERS = ("Llama", "CodeLlama", "Gemma")  # classes of tokenizers that do
# What generation_config.json may say and a text would follow, each with what changes nothing. Temperature,
# top_k, beams, penalties and the number of tokens are not among them: see convert/asked.py.
PLAIN: dict[str, tuple[Any, ...]] = {
    "suppress_tokens": (None, []),
    "begin_suppress_tokens": (None, []),
    "bad_words_ids": (None, []),
    "sequence_bias": (None, [], {}),
    "forced_bos_token_id": (None,),
    "forced_eos_token_id": (None,),
    "forced_decoder_ids": (None, []),
    "stop_strings": (None, []),
    "min_length": (None, 0),
    "min_new_tokens": (None, 0),
    "no_repeat_ngram_size": (None, 0),
}


class TextModel(NamedTuple):
    """A model with its parameters, its task, what decoding needs, and what its folder asks for in how texts are drawn."""

    model: nn.Module
    params: Any
    task: Task
    decoder: Decoder
    asked: Asked = Asked()


def open_text_model(
    folder: str | os.PathLike[str], *, warn: Callable[[str], Any] = warnings.warn
) -> TextModel:
    """The model of a folder with config.json, weights and a tokenizer; or of a llama2.c file with its tokenizer beside it.

    One with an encoder, as T5, writes what it makes of a source. How texts are drawn is the caller's choice:
    what the folder asks for there is said by `warn`, and not followed.
    """
    made = read_text_model(folder)
    if unmet := made.asked.unmet(()):
        warn(unmet)
    return made


def read_text_model(folder: str | os.PathLike[str]) -> TextModel:
    """As open_text_model, for a caller who uses made.asked, or draws nothing."""
    model, params, _, config = load_pretrained(folder)
    if not hasattr(model, "start"):
        raise ValueError(
            f"{folder}: got a {config['model_type']}, which does not generate text; expected a model that "
            "does. Take a gpt2 or llama."
        )
    folder = Path(folder)
    if folder.is_file():
        vocabulary = _vocabulary(folder, model)
        made = language.decoder(model, encode=vocabulary.encode, decode=vocabulary.decode, begin=1, end=2)
        return TextModel(model, params, language.next_token(model), made)
    tokenizer = Tokenizer.load(folder)
    generation, asked = _generation(folder, config), Asked(*_said(folder, config))
    special = {**config, **generation}

    def tokens(name: str) -> tuple[int, ...]:
        path = asked.path if name in generation else folder / "config.json"
        return _tokens(special, name, path, model.vocabulary)

    ends = tokens("eos_token_id")
    end = ends[0] if len(ends) == 1 else ends or None
    if hasattr(model, "encode"):
        begin = next(iter(tokens("decoder_start_token_id")), None)
        if begin is None or end is None:
            raise ValueError(
                f"{folder / 'config.json'}: got decoder_start_token_id {begin} and eos_token_id {end}; "
                "expected two tokens. Correct the file."
            )
        encode = _encoder(
            tokenizer, model, tokenizer.before or (), ends[:1] if tokenizer.after is None else tokenizer.after
        )
        made = translate.decoder(model, encode=encode, decode=tokenizer.decode, begin=begin, end=end)
        return TextModel(model, params, translate.translate(model), made, asked)
    before = _before(tokenizer, config, folder, model.vocabulary)
    first = before[0] if len(before) == 1 else None
    encode = _encoder(tokenizer, model, before if first is None else (), tokenizer.after or ())
    made = language.decoder(model, encode=encode, decode=tokenizer.decode, begin=first, end=end)
    return TextModel(model, params, language.next_token(model), made, asked)


def _generation(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What generation_config.json says of special tokens, before which config.json does not count."""
    where, said = _said(folder, config)
    for name, plain in PLAIN.items():
        if name in said and said[name] not in plain:
            raise ValueError(
                f"{where}: got {name} {str(said[name])[:80]}; expected none, the only value that is "
                "followed. Take it out of the file to go on without it."
                + (", and give the strings with --stop" if name == "stop_strings" else "")
            )
    names = ("eos_token_id", "decoder_start_token_id")
    return {name: said[name] for name in names if said.get(name) is not None}


def _said(folder: Path, config: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
    """The file that says how texts are generated, and what it says."""
    path = folder / "generation_config.json"
    return (path, read_object(path)) if path.is_file() else (folder / "config.json", config)


def _before(
    tokenizer: Tokenizer, config: Mapping[str, Any], folder: Path, vocabulary: int
) -> tuple[int, ...]:
    """What stands before every text: as the tokenizer's files say, else by its class or the kind of the model."""
    settings = read_settings(folder)
    if tokenizer.before is not None and settings.switch("add_bos_token") is not True:
        return tokenizer.before
    begins = settings.kind in BEGINNERS if settings.named else config["model_type"] in BEGINS
    if tokenizer.before or not (begins or settings.switch("add_bos_token")):
        return tokenizer.before or ()
    return _tokens(config, "bos_token_id", folder / "config.json", vocabulary)[:1]


def _encoder(
    tokenizer: Tokenizer, model: Any, before: tuple[int, ...], after: tuple[int, ...]
) -> Callable[[str], list[int]]:
    """encode, with what stands around a text; a number that the model has not is a ValueError."""

    def encode(text: str) -> list[int]:
        tokens = [*before, *tokenizer.encode(text), *after]
        if tokens and max(tokens) >= model.vocabulary:
            raise ValueError(
                f"got the token {max(tokens)}, {tokenizer.decode([max(tokens)])!r}, in a text for a model of "
                f"{model.vocabulary:,} tokens; expected numbers below that. Leave it out, or take this "
                "model's tokenizer."
            )
        return tokens

    return encode


def _vocabulary(path: Path, model: Any) -> Vocabulary:
    """The tokenizer of a llama2.c file, by the names that the program knows."""
    paths = [path.with_name(name) for name in (f"tok{model.vocabulary}.bin", "tokenizer.bin")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{path}: got neither {paths[0].name} nor {paths[1].name} beside it; expected its tokenizer. Put "
            "it there."
        )
    return load_vocabulary(found, model.vocabulary)


def _tokens(config: Mapping[str, Any], name: str, path: Path, vocabulary: int = 2**31) -> tuple[int, ...]:
    """A special token's number, or those of several, as the file at this path says, of a model with so many tokens."""
    value = config.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(one) is int and 0 <= one < 2**31 for one in values):
        raise ValueError(f"{path}: got {name} {value!r}; expected a token. Correct the file.")
    if values and max(values) >= vocabulary:
        raise ValueError(
            f"{path}: got {name} {str(value)[:80]}; expected numbers below {vocabulary:,}, the model's "
            "tokens. Correct the file."
        )
    return tuple(dict.fromkeys(values))
