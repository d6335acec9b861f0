"""Tiny language models on letters, far from uniform, and what the engine wrote for requests."""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp

from jaxmodels.decoding import generate
from jaxmodels.decoding.sample import SamplingOptions
from jaxmodels.interfaces import Decoder
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.moe import MoE
from jaxmodels.models.rnn import RNN
from jaxmodels.serving.request import Piece, Request
from jaxmodels.tasks.language import decoder

LETTERS = 'abcdefghij {}[]":,-.0123456789truefalsn\n'
LETTERS = "".join(dict.fromkeys(LETTERS))
V = len(LETTERS)
LENGTH = 48
END = LETTERS.index("\n")

SIZES = {"vocabulary": V, "length": LENGTH, "width": 16, "depth": 2, "heads": 2}
MODELS = {
    "gpt": GPT(**SIZES),
    "llama": Llama(**SIZES, key_heads=1, hidden_width=24),
    "moe": MoE(**SIZES, key_heads=1, experts=3, chosen=2, expert_width=16),
    "lstm": RNN(vocabulary=V, width=16, depth=2, length=LENGTH),
    "draft": GPT(**{**SIZES, "width": 8, "depth": 1}),
}


def encode(text: str) -> list[int]:
    return [LETTERS.index(c) for c in text]


def decode(tokens) -> str:
    return "".join(LETTERS[t] for t in tokens)


@lru_cache
def model(name: str, end: int | None = END, length: int = LENGTH) -> tuple[Decoder, dict]:
    """(decoder, params)."""
    module = MODELS[name].clone(length=length)
    params = jax.jit(module.init)(jax.random.key(1), jnp.zeros((1, 4), jnp.int32))["params"]
    params = jax.tree.map(lambda x: 6 * x, params)
    return decoder(module, encode=encode, decode=decode, end=end), params


def request(prompt: str, *, stop=(), schema=None, adapter=None, **options) -> Request:
    return Request(tuple(encode(prompt)), SamplingOptions(**options), tuple(stop), adapter, schema)


def joined(pieces: list[Piece]) -> tuple[str, list[int], list[float]]:
    """Text, tokens and log-probabilities of all pieces."""
    return (
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.tokens],
        [x for piece in pieces for x in piece.logprobs],
    )


def alone(name: str, asked: Request, **model_options) -> tuple[str, list[int], list[float]]:
    """What generate gives for a request; up to a full context."""
    decoder, params = model(name, **model_options)
    room = decoder.length - len(asked.tokens) + 1
    options = asked.options._replace(tokens=min(asked.options.tokens, room))._asdict()
    found = generate(decoder, params, {}, [decode(asked.tokens)], stop=asked.stop, **options)[0]
    return found.text, found.tokens, found.logprobs
