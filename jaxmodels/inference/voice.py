"""open_voice(): a voice of Piper, or of Hugging Face's VITS, from its files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmodels.convert.load import load_pretrained
from jaxmodels.convert.piper import load_piper
from jaxmodels.data.formats.json_file import read_object
from jaxmodels.speech.voice import Voice


def open_voice(path: str | os.PathLike[str]) -> Voice:
    """The voice of a Piper file, .onnx with .onnx.json beside it, or of a folder of Hugging Face's VITS."""
    path = Path(path)
    if path.is_dir():
        return _hugging_face(path)
    if path.suffix != ".onnx":
        raise ValueError(
            f"{path}: got no voice; expected the .onnx file of a voice of Piper, or a folder of VITS with "
            "config.json and vocab.json. Check the path."
        )
    settings = path.with_name(path.name + ".json")
    found = read_object(settings)
    table = _table(settings, found.get("phoneme_id_map"))
    language, rate = _value(found, "espeak", "voice"), _value(found, "audio", "sample_rate")
    if found.get("phoneme_type", "espeak") != "espeak" or not isinstance(language, str) or not language:
        raise ValueError(
            f"{settings}: got phonemes of the type {str(found.get('phoneme_type'))[:80]!r} and the eSpeak "
            f"voice {str(language)[:80]!r}; expected those of eSpeak. Take another voice."
        )
    model, params, _, _ = load_piper(path)
    _check_tokens(settings, table, model.vocabulary)
    if absent := [mark for mark in "^_$" if mark not in table]:
        raise ValueError(
            f"{settings}: got no symbol {absent[0]!r}; expected it, for the ends of sentences and what lies "
            "between phonemes. Get the file again."
        )
    begin, blank, end = (table.pop(mark) for mark in "^_$")
    return Voice(
        model,
        params,
        _rate(settings, rate),
        table,
        begin,
        blank,
        end,
        language,
        noise=_noise(settings, _value(found, "inference", "noise_scale"), Voice.noise),
        duration_noise=_noise(settings, _value(found, "inference", "noise_w"), Voice.duration_noise),
    )


def _hugging_face(folder: Path) -> Voice:
    vocabulary, settings = folder / "vocab.json", folder / "tokenizer_config.json"
    read = read_object(settings) if settings.is_file() else {}
    table = _table(vocabulary, {x: [i] for x, i in read_object(vocabulary).items()})
    options = {"add_blank": True, "normalize": True, "phonemize": True, "is_uroman": False}
    options = {name: read.get(name, default) for name, default in options.items()}
    if options["is_uroman"]:
        raise ValueError(
            f"{settings}: got is_uroman; expected a voice that reads its language's letters. Take another."
        )
    model, params, _, config = load_pretrained(folder)
    if model.speakers > 1:
        raise ValueError(
            f"{folder}: got {model.speakers} speakers; expected a voice of one. Take another voice."
        )
    table = {x: tokens for x, tokens in table.items() if len(x) == 1}
    _check_tokens(vocabulary, table, model.vocabulary)
    return Voice(
        model,
        params,
        _rate(folder / "config.json", config.get("sampling_rate", 16_000)),
        table,
        blank=(0,) if options["add_blank"] else (),
        language="en-us" if options["phonemize"] else "",
        lower=bool(options["normalize"]),
        noise=_noise(folder, config.get("noise_scale"), Voice.noise),
        duration_noise=_noise(folder, config.get("noise_scale_duration"), Voice.duration_noise),
    )


def _value(found: Mapping[str, Any], part: str, name: str) -> Any:
    inner = found.get(part)
    return inner.get(name) if isinstance(inner, dict) else None


def _table(path: Path, table: Any) -> dict[str, tuple[int, ...]]:
    """Tokens by symbol, checked."""
    sound = isinstance(table, dict) and 0 < len(table) <= 100_000
    if not sound or not all(
        isinstance(tokens, list) and 0 < len(tokens) < 10 and all(type(i) is int for i in tokens)
        for tokens in table.values()
    ):
        raise ValueError(
            f"{path}: got no table of symbols; expected a list of whole numbers for each. Get the file again."
        )
    return {symbol: tuple(tokens) for symbol, tokens in table.items()}


def _check_tokens(path: Path, table: Mapping[str, tuple[int, ...]], vocabulary: int) -> None:
    for symbol, tokens in table.items():
        if not all(0 <= i < vocabulary for i in tokens):
            raise ValueError(
                f"{path}: got {tokens} for {symbol!r}; expected numbers below {vocabulary}, the model's "
                "vocabulary. See whether both files are of one voice."
            )


def _rate(path: Path, rate: Any) -> int:
    if type(rate) is not int or not 1000 <= rate <= 200_000:
        raise ValueError(
            f"{path}: got a rate of {str(rate)[:80]}; expected 1000 to 200,000 samples a second. Correct it."
        )
    return rate


def _noise(path: Path, value: Any, default: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 10:
        raise ValueError(f"{path}: got noise {str(value)[:80]}; expected 0 to 10. Correct it.")
    return float(value)
