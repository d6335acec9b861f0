"""Whisper's programs: a window is heard once, then texts of it are written by the decoding of other models.

    30 s of samples ──listen──► the sound's keys and values, language, no speech
    these, a prompt ──Decoder──► tokens, by jaxmodels.decoding

Dimensions: B windows or rows of text, of which several may hear one window, S samples, T tokens of a prompt,
L languages, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.interfaces import Decoder
from jaxmodels.layers.mel import whisper_log_mel
from jaxmodels.speech.rules import Written, allowed
from jaxmodels.speech.symbols import Symbols

HOP = 160  # samples of 16 kHz in a frame


class Heard(NamedTuple):
    """Windows: what the decoder attends to, and what its first token could be, of each."""

    source: Any  # keys and values by layer
    languages: jax.Array  # the probability of each of symbols.languages, by window
    no_speech: jax.Array  # the probability that nobody speaks, by window


class _Cache(NamedTuple):
    """Every array has the rows as its second axis; what was heard is no part of it."""

    target: Any
    written: Written


def listen(model: Any, symbols: Symbols, params: Any, audio_BS: jax.Array) -> Heard:
    """Hears windows of 16 kHz; compiled once, as all windows have the model's length."""
    variables, B = {"params": params}, len(audio_BS)
    frames_BTF = whisper_log_mel(audio_BS, bands=model.bands)
    memory_BNM = model.apply(variables, frames_BTF, method="encode")
    start_B1 = jnp.full((B, 1), symbols.start, jnp.int32)
    inputs = (start_B1, memory_BNM, None, None, model.start(B, 1))
    x_B1M, cache = model.apply(variables, *inputs, method="hidden")
    logits_BV = _logits(model, variables, x_B1M[:, 0]).astype(jnp.float32)
    no_speech_B = jax.nn.softmax(logits_BV)[:, symbols.no_speech]
    among_BL = jax.nn.softmax(logits_BV[:, np.array([*symbols.languages.values()], np.int32)])
    return Heard(tuple(cache[1:]), among_BL, no_speech_B)


def writer(model: Any, symbols: Symbols, *, times: bool = True) -> Decoder:
    """The Decoder of texts about a window: `extra` of its functions is Heard.source.

    times: whether a text has them.
    """

    def hidden(params: Any, source: Any, tokens_BT: Any, target: Any, count_B: Any) -> tuple[Any, Any]:
        cache = type(model.start(1, 1))(target, *source)
        variables = {"params": params}
        inputs = (tokens_BT, None, None, None, cache, count_B)
        x_BTM, cache = model.apply(variables, *inputs, method="hidden")
        return x_BTM, cache.target

    def read(params, source, tokens_BT, count_B, length):
        B = len(tokens_BT)
        x_BTM, target = hidden(params, source, tokens_BT, model.start(B, length).target, count_B)
        last_BM = x_BTM[jnp.arange(B), count_B - 1]
        written = Written.nothing(B)
        return _next(params, last_BM, written), _Cache(target, written)

    def write(params, source, tokens_B, cache):
        x_B1M, target = hidden(params, source, tokens_B[:, None], cache.target, None)
        written = cache.written.then(tokens_B, symbols)
        return _next(params, x_B1M[:, 0], written), _Cache(target, written)

    def _next(params, x_BM, written):
        return allowed(_logits(model, {"params": params}, x_BM), written, symbols, times=times)

    return Decoder(read, write, _no_text, _no_text, model.length, end=symbols.end)


def _no_text(_: Any) -> Any:
    raise AssertionError("prompts here are tokens")


def _logits(model: Any, variables: Any, x_BM: jax.Array) -> jax.Array:
    return x_BM @ model.apply(variables, method="table").astype(x_BM.dtype).T


def compiled_listen(model: Any, symbols: Symbols) -> Any:
    """listen of (params, audio_BS), compiled."""
    return jax.jit(partial(listen, model, symbols))
