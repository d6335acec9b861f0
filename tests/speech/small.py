"""A small vocabulary with all the tokens of Whisper that are no text, and a model of random weights."""

from __future__ import annotations

from functools import cache

import jax
import numpy as np

from jaxmodels.models.whisper import Whisper
from jaxmodels.speech.symbols import Symbols
from jaxmodels.speech.transcriber import Transcriber

V, TIMES = 60, 39  # times are 39 to 59, 0 to 0.4 s
SYMBOLS = Symbols(
    end=30,
    start=31,
    previous=36,
    no_speech=37,
    no_times=38,
    tasks={"transcribe": 35, "translate": 34},
    languages={"en": 32, "de": 33},
    multilingual=True,
    suppressed=(3, 4),
    first_suppressed=(5, 30),
)
MODEL = Whisper(V, 16, 2, 2, 24, decoder_depth=2, bands=80, frames=40, length=32)


@cache
def variables(seed: int = 0):
    """Random parameters, large enough that different sounds give different texts."""
    frames, tokens = np.zeros((1, 4, 80), np.float32), np.zeros((1, 2), np.int32)
    shapes = jax.eval_shape(MODEL.init, jax.random.key(0), frames, tokens)["params"]
    random = np.random.default_rng(seed)

    def draw(path, x):
        value = random.normal(size=x.shape).astype(np.float32) * 0.4
        return value + 1 if "scale" in str(path) else value

    return jax.tree_util.tree_map_with_path(draw, shapes)


def transcriber(seed: int = 0, kind: type = Transcriber) -> Transcriber:
    """A model of random weights; a token of its text is a letter, and ten are a space."""
    return kind(
        MODEL, variables(seed), SYMBOLS, lambda tokens: "".join("abcdefghij "[t % 11] for t in tokens)
    )
