"""Whisper as a model of sounds: one compiled program from the samples of a window to the tokens of its text.

Greedy, without times and without a second try, so that it can be exported; speech/transcriber.py does the
rest.
Dimensions: B sounds, S samples of a window, N tokens of a text, V vocabulary.
"""

from __future__ import annotations

import os
from typing import Any, BinaryIO, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.interfaces import Predictor
from jaxmodels.speech.listening import listen, writer
from jaxmodels.speech.transcriber import RATE, Transcriber


class _State(NamedTuple):
    n: jax.Array
    tokens_BN: jax.Array
    done_B: jax.Array
    logits_BV: jax.Array
    cache: Any


def predictor(transcriber: Transcriber, read: Any) -> Predictor:
    """What is said in the first window of a recording, in the language that it sounds like.

    read(file, rate=, samples=): the samples of a file, such as data.formats.audio_file.read_audio.
    """
    model, symbols, limit = transcriber.model, transcriber.symbols, transcriber.model.length // 2
    decoder = writer(model, symbols, times=False)
    languages = [*symbols.languages]

    def read_window(file: str | os.PathLike[str] | BinaryIO) -> dict[str, np.ndarray]:
        audio_S = read(file, rate=RATE, samples=transcriber.samples)
        return {"audio": np.pad(audio_S, (0, transcriber.samples - len(audio_S)))}

    def predict(params: Any, extra: Any, batch: Any) -> dict[str, jax.Array]:
        heard = listen(model, symbols, params, batch["audio"])
        language_B = heard.languages.argmax(-1)
        prompt_BT = _prompts(transcriber, language_B)
        count_B = jnp.full(len(prompt_BT), prompt_BT.shape[1], jnp.int32)
        logits_BV, cache = decoder.read(params, heard.source, prompt_BT, count_B, prompt_BT.shape[1] + limit)

        def step(state: _State) -> _State:
            token_B = jnp.where(state.done_B, symbols.end, state.logits_BV.argmax(-1)).astype(jnp.int32)
            logits_BV, cache = decoder.write(params, heard.source, token_B, state.cache)
            tokens_BN = state.tokens_BN.at[:, state.n].set(token_B)
            return _State(state.n + 1, tokens_BN, state.done_B | (token_B == symbols.end), logits_BV, cache)

        B = len(prompt_BT)
        tokens_BN, done_B = jnp.full((B, limit), symbols.end, jnp.int32), jnp.zeros(B, bool)
        start = _State(jnp.zeros((), jnp.int32), tokens_BN, done_B, logits_BV, cache)
        state = jax.lax.while_loop(lambda s: (s.n < limit) & ~s.done_B.all(), step, start)
        return {"tokens": state.tokens_BN, "language": language_B, "no_speech": heard.no_speech}

    def report(said: Any) -> dict[str, Any]:
        tokens = [int(token) for token in said["tokens"] if token < symbols.end]
        language = languages[int(said["language"])] if symbols.multilingual else "en"
        text = transcriber.decode(tokens).strip()
        return {"text": text, "language": language, "no_speech": float(said["no_speech"])}

    def settings() -> dict[str, Any]:
        return {"rate": RATE, "samples": transcriber.samples, "languages": languages, "end": symbols.end}

    return Predictor(read_window, predict, report, input="sound", settings=settings)


def _prompts(transcriber: Transcriber, language_B: jax.Array) -> jax.Array:
    """Each row's tokens before its text, BT."""
    symbols = transcriber.symbols
    table = [symbols.prompt(x, "transcribe", times=False) for x in symbols.languages if symbols.multilingual]
    if not symbols.multilingual:
        table = [symbols.prompt("en", "transcribe", times=False)] * len(symbols.languages)
    return jnp.asarray(table, jnp.int32)[language_B]
