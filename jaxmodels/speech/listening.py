"""Whisper's programs: a window is heard once, then texts of it are written by the decoding of other models.

    30 s of samples ──listen──► the sound's keys and values, language, no speech
    these, a prompt ──Decoder──► tokens, by jaxmodels.decoding

Dimensions: B rows, of which all hear one sound, S samples, T tokens of a prompt, V vocabulary.
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
    """A window: what the decoder attends to, and what its first token could be."""

    source: Any  # keys and values by layer
    languages: jax.Array  # the probability of each of symbols.languages
    no_speech: jax.Array


class _Cache(NamedTuple):
    """Every array has the rows as its second axis; what was heard is no part of it."""

    target: Any
    written: Written


def listen(model: Any, symbols: Symbols, params: Any, audio_1S: jax.Array) -> Heard:
    """Hears a window of 16 kHz; compiled once, as all windows have the model's length."""
    variables = {"params": params}
    frames_1SF = whisper_log_mel(audio_1S, bands=model.bands)
    memory_1NM = model.apply(variables, frames_1SF, method="encode")
    start_11 = jnp.full((1, 1), symbols.start, jnp.int32)
    inputs = (start_11, memory_1NM, None, None, model.start(1, 1))
    x_11M, cache = model.apply(variables, *inputs, method="hidden")
    logits_V = _logits(model, variables, x_11M[:, 0])[0]
    probability_V = jax.nn.softmax(logits_V)
    among = jax.nn.softmax(logits_V[np.array([*symbols.languages.values()], np.int32)])
    return Heard(tuple(cache[1:]), among, probability_V[symbols.no_speech])


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
    """listen of (params, audio_1S), compiled."""
    return jax.jit(partial(listen, model, symbols))
