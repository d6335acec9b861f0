"""A text, or a question with its context, as the arrays of one example, prepared as in training.

Dimensions: T tokens, W windows of a context, L letters of a context.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Encode = Callable[[str], tuple[Sequence[int], Sequence[tuple[int, int]]]]


def text_example(tokens: Sequence[int], lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """ "inputs" and "segments" (int32, T): T is the smallest of the lengths that holds the tokens.

    Of a longer text the first tokens are taken. A text without tokens is a ValueError.
    """
    if not len(tokens):
        raise ValueError("got a text without a token; expected some words. Write them")
    T = next((length for length in sorted(lengths) if length >= len(tokens)), max(lengths))
    inputs_T, segments_T = np.zeros(T, np.int32), np.zeros(T, np.int32)
    inputs_T[: len(tokens)] = tokens[:T]
    segments_T[: len(tokens)] = 1
    return {"inputs": inputs_T, "segments": segments_T}


def window_begins(tokens: int, room: int, stride: int) -> list[int]:
    """The first token of each window of `room` tokens on a context: they overlap, and the last ends it."""
    last = max(0, tokens - room)
    return [*range(0, last, stride), last]


def question_windows(
    row: Mapping[str, Any],
    *,
    encode: Encode,
    first: int,
    between: int,
    lengths: Sequence[int],
    stride: int,
    asked: int = 64,
) -> dict[str, np.ndarray]:
    """A question and its context as windows [first] question [between] context [between], for a predictor.

    Arrays "window_inputs", "window_segments", "window_types" and "window_context" (int32, WT) and
    "window_characters" (int32, WT2, begin and end of each token in the context), and the context's "letters"
    (int32, L), as tasks.question_answering.predictor takes them. W and L are powers of two, so that few
    programs serve contexts of any length.
    encode, first, between, stride, asked: as of data.datasets.squad.Squad. lengths: of windows; a row's have
    the smallest that holds them.
    """
    for name in ("question", "context"):
        if not isinstance(row[name], str) or not row[name].strip():
            raise ValueError(f"got {row[name]!r} as the {name}; expected a text. Write one")
    context = row["context"]
    tokens, characters = encode(context)
    head = [first, *list(encode(row["question"])[0])[:asked], between]
    if not len(tokens):
        raise ValueError("got a context without a token; expected some words. Write them")
    room = max(lengths) - len(head) - 1
    begins = window_begins(len(tokens), room, stride)
    most = len(head) + min(room, len(tokens)) + 1
    T = next(length for length in sorted(lengths) if length >= most)
    W = 1 << (len(begins) - 1).bit_length()
    found = {name: np.zeros((W, T), np.int32) for name in ("inputs", "segments", "types", "context")}
    characters_WT2 = np.zeros((W, T, 2), np.int32)
    for window, begin in enumerate(begins):
        part = list(tokens[begin : begin + room])
        count, after = len(head) + len(part) + 1, len(head) + len(part)
        found["inputs"][window, :count] = [*head, *part, between]
        found["segments"][window, :count] = 1
        found["types"][window, len(head) : count] = 1
        found["context"][window, len(head) : after] = 1
        characters_WT2[window, len(head) : after] = characters[begin : begin + room]
    letters_L = np.zeros(1 << (len(context) - 1).bit_length(), np.int32)
    letters_L[: len(context)] = [ord(letter) for letter in context]
    windows = {f"window_{name}": x for name, x in found.items()}
    return {**windows, "window_characters": characters_WT2, "letters": letters_L}
