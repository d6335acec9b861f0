"""A text model from a Hugging Face folder or a llama2.c file, ready to generate text and to be scored."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn

from jaxmodels.convert.generation_config import GenerationSettings
from jaxmodels.convert.llama2c import Vocabulary, load_vocabulary
from jaxmodels.convert.load import load_pretrained
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.data.formats.tokenizer_settings import read_settings
from jaxmodels.interfaces import Decoder
from jaxmodels.task import Task
from jaxmodels.tasks import language, translate

# Kinds of models, and classes of tokenizers, that put a first token before every text where no file of the
# tokenizer says otherwise.
BEGINNING_MODELS = {"llama", "mistral", "mixtral"}
BEGINNING_TOKENIZERS = ("Llama", "CodeLlama", "Gemma")
# Settings of generation_config.json that would change a text and are refused, with the values that change
# nothing. Temperature, top_k, beams, penalties and the number of tokens are options: see
# generation_config.py.
NEUTRAL: dict[str, tuple[Any, ...]] = {
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
    """A model with its parameters, its task, its decoder, and its folder's settings of generation."""

    model: nn.Module
    params: Any
    task: Task
    decoder: Decoder
    generation: GenerationSettings = GenerationSettings()


def open_text_model(
    folder: str | os.PathLike[str], *, warn: Callable[[str], Any] = warnings.warn
) -> TextModel:
    """The model of a folder with config.json, weights and a tokenizer, or of a llama2.c file with its own.

    A model with an encoder, such as T5, generates the output for a source text. The caller chooses how to
    sample: `warn` gets a sentence on the folder's settings of it, which are not followed.
    """
    text_model = read_text_model(folder)
    if unmet := text_model.generation.unmet(()):
        warn(unmet)
    return text_model


def read_text_model(
    folder: str | os.PathLike[str], *, adapter: str | os.PathLike[str] | None = None
) -> TextModel:
    """As open_text_model, for a caller who reports .generation itself, or does not sample.

    adapter: as in load_pretrained.
    """
    model, params, _, config = load_pretrained(folder, adapter=adapter)
    if config.get("model_type") == "whisper":
        raise ValueError(
            f"{folder}: got a whisper, which writes what it hears; expected a model that reads text. Call "
            "jaxmodels transcribe."
        )
    if not hasattr(model, "start"):
        raise ValueError(
            f"{folder}: got a {config['model_type']}, which does not generate text; expected a model that "
            "does. Take a gpt2 or llama."
        )
    folder = Path(folder)
    if folder.is_file():
        vocabulary = _vocabulary(folder, model)
        decoder = language.decoder(
            model,
            encode=vocabulary.encode,
            decode=vocabulary.decode,
            begin=vocabulary.begin,
            end=vocabulary.end,
        )
        return TextModel(model, params, language.next_token(model), decoder)
    tokenizer = Tokenizer.load(folder)
    generation = GenerationSettings(*_settings(folder, config))
    own_tokens = special_tokens(folder, config)

    def tokens(name: str) -> tuple[int, ...]:
        path = generation.path if name in own_tokens else folder / "config.json"
        return token_ids({**config, **own_tokens}, name, path, model.vocabulary)

    ends = tokens("eos_token_id")
    end = ends[0] if len(ends) == 1 else ends or None
    if hasattr(model, "encode"):
        begin = next(iter(tokens("decoder_start_token_id")), None)
        if begin is None or end is None:
            raise ValueError(
                f"{folder / 'config.json'}: got decoder_start_token_id {begin} and eos_token_id {end}; "
                "expected two tokens. Correct the file."
            )
        after = ends[:1] if tokenizer.after is None else tokenizer.after
        encode = _encoder(tokenizer, model, tokenizer.before or (), after)
        decoder = translate.decoder(model, encode=encode, decode=tokenizer.decode, begin=begin, end=end)
        return TextModel(model, params, translate.translate(model), decoder, generation)
    before = _before(tokenizer, config, folder, model.vocabulary)
    first = before[0] if len(before) == 1 else None
    encode = _encoder(tokenizer, model, before if first is None else (), tokenizer.after or ())
    decoder = language.decoder(model, encode=encode, decode=tokenizer.decode, begin=first, end=end)
    return TextModel(model, params, language.next_token(model), decoder, generation)


def special_tokens(folder: Path, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The special tokens of generation_config.json, which go before those of config.json.

    A ValueError where the file asks for a change of texts that is not followed.
    """
    path, settings = _settings(folder, config)
    for name, neutral in NEUTRAL.items():
        if name in settings and settings[name] not in neutral:
            stop = ", and give the strings with --stop" if name == "stop_strings" else ""
            raise ValueError(
                f"{path}: got {name} {str(settings[name])[:80]}; expected none, the only value that is "
                f"followed. Take it out of the file to go on without it{stop}."
            )
    names = ("eos_token_id", "decoder_start_token_id")
    return {name: settings[name] for name in names if settings.get(name) is not None}


def _settings(folder: Path, config: Mapping[str, Any]) -> tuple[Path, Mapping[str, Any]]:
    """The file with settings of generation, and the settings."""
    path = folder / "generation_config.json"
    return (path, read_object(path)) if path.is_file() else (folder / "config.json", config)


def _before(
    tokenizer: Tokenizer, config: Mapping[str, Any], folder: Path, vocabulary: int
) -> tuple[int, ...]:
    """The tokens before every text: by the tokenizer's files, else by its class or the kind of the model."""
    settings = read_settings(folder)
    if tokenizer.before is not None and settings.switch("add_bos_token") is not True:
        return tokenizer.before
    if settings.named:
        begins = settings.kind in BEGINNING_TOKENIZERS
    else:
        begins = config["model_type"] in BEGINNING_MODELS
    if tokenizer.before or not (begins or settings.switch("add_bos_token")):
        return tokenizer.before or ()
    return token_ids(config, "bos_token_id", folder / "config.json", vocabulary)[:1]


def _encoder(
    tokenizer: Tokenizer, model: Any, before: tuple[int, ...], after: tuple[int, ...]
) -> Callable[[str], list[int]]:
    """The tokenizer's encode with the tokens around a text; a token beyond the model's is a ValueError."""

    def encode(text: str) -> list[int]:
        tokens = [*before, *tokenizer.encode(text), *after]
        if tokens and max(tokens) >= model.vocabulary:
            raise ValueError(
                f"got the token {max(tokens)}, {tokenizer.decode([max(tokens)])!r}, in a text for a model of "
                f"{model.vocabulary:,} tokens; expected tokens below that. Leave it out, or take this "
                "model's tokenizer."
            )
        return tokens

    return encode


def _vocabulary(path: Path, model: Any) -> Vocabulary:
    """The tokenizer beside a llama2.c file, by the names that llama2.c uses."""
    paths = [path.with_name(name) for name in (f"tok{model.vocabulary}.bin", "tokenizer.bin")]
    found = next((path for path in paths if path.is_file()), None)
    if found is None:
        raise FileNotFoundError(
            f"{path}: got neither {paths[0].name} nor {paths[1].name} beside it; expected its tokenizer. Put "
            "it there."
        )
    return load_vocabulary(found, model.vocabulary)


def token_ids(config: Mapping[str, Any], name: str, path: Path, vocabulary: int = 2**31) -> tuple[int, ...]:
    """The special tokens of this name, from the file at this path, for a model of `vocabulary` tokens."""
    value = config.get(name)
    values = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int and 0 <= token < 2**31 for token in values):
        raise ValueError(f"{path}: got {name} {value!r}; expected a token. Correct the file.")
    if values and max(values) >= vocabulary:
        raise ValueError(
            f"{path}: got {name} {str(value)[:80]}; expected numbers below {vocabulary:,}, the model's "
            "tokens. Correct the file."
        )
    return tuple(dict.fromkeys(values))
