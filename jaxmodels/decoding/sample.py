"""Sampling one token after another, with a cache that is an explicit argument.

Dimensions: B batch, T tokens, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.task import Decoder


def choose(logits_BV: jax.Array, key: jax.Array, *, temperature: float, top_k: int = 0, top_p: float = 1.0) -> jax.Array:
    """One token for each row: the likeliest at temperature 0, else drawn from the k likeliest or the top_p nucleus.

    The nucleus (arXiv:1904.09751) is the smallest set of likeliest tokens whose probability reaches top_p.
    """
    logits_BV = logits_BV.astype(jnp.float32)
    if temperature == 0:
        return logits_BV.argmax(-1)
    logits_BV = logits_BV / temperature
    if top_k:
        floor_B1 = jax.lax.top_k(logits_BV, min(top_k, logits_BV.shape[-1]))[0][:, -1:]
        logits_BV = jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
    if top_p < 1:
        sorted_BV = -jnp.sort(-logits_BV, axis=-1)
        before_BV = jnp.cumsum(jax.nn.softmax(sorted_BV, -1), -1) - jax.nn.softmax(sorted_BV, -1)
        floor_B1 = jnp.where(before_BV < top_p, sorted_BV, jnp.inf).min(-1, keepdims=True)
        logits_BV = jnp.where(logits_BV < floor_B1, -jnp.inf, logits_BV)
    return jax.random.categorical(key, logits_BV)


def stream(
    decoder: Decoder,
    params: Any,
    extra: Any,
    prompt: str,
    *,
    tokens: int = 200,
    temperature: float = 0.8,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[int]:
    """Tokens after the prompt, one by one, until the decoder's end token or `tokens` of them.

    Where the model's length is full, it goes on from the newer half of what it has seen.
    """
    _check(temperature, top_k, top_p, tokens)
    seen = ([decoder.begin] if decoder.begin is not None else []) + list(decoder.encode(prompt))
    if not seen:
        raise ValueError("the prompt is empty and the model has no token to begin with; give --prompt some text")
    # The arrays are arguments: closed over, they would be compiled into the program.
    step = jax.jit(lambda p, e, tokens_BT, cache: decoder.step(p, e, tokens_BT, cache), donate_argnums=3)
    pick: Callable = jax.jit(
        lambda logits_BTV, key: choose(logits_BTV[:, -1], key, temperature=temperature, top_k=top_k, top_p=top_p)
    )
    key, cache, pending = jax.random.key(seed), None, seen
    used = decoder.length
    for n in range(tokens):
        if used + len(pending) > decoder.length:
            pending = seen[-max(1, decoder.length // 2) :] if cache is not None else seen[-max(1, decoder.length - 1) :]
            cache, used = decoder.start(1, decoder.length), 0
        # Powers of two, so that prompts of every length share a few compilations.
        for size in _powers(len(pending)):
            logits_BTV, cache = step(params, extra, jnp.asarray(pending[:size])[None], cache)
            pending, used = pending[size:], used + size
        token = int(pick(logits_BTV, jax.random.fold_in(key, n))[0])
        if token == decoder.end:
            return
        seen.append(token)
        pending = [token]
        yield token


def generate_text(decoder: Decoder, params: Any, extra: Any, prompt: str, **how: Any) -> str:
    """The text that follows the prompt; see stream for the options."""
    return decoder.decode(list(stream(decoder, params, extra, prompt, **how)))


def _powers(n: int) -> list[int]:
    """n as a sum of powers of two, largest first."""
    return [1 << i for i in range(n.bit_length() - 1, -1, -1) if n >> i & 1]


def _check(temperature: float, top_k: int, top_p: float, tokens: int) -> None:
    for name, value, good, wanted in (
        ("temperature", temperature, temperature >= 0, "0 or more"),
        ("top-k", top_k, top_k >= 0, "0 (all) or more"),
        ("top-p", top_p, 0 < top_p <= 1, "above 0 and at most 1"),
        ("tokens", tokens, tokens >= 1, "at least 1"),
    ):
        if not good:
            raise ValueError(f"{name} is {value}; it must be {wanted}")
