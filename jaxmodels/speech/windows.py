"""A window's tokens as segments with times, and where the next window starts."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import NamedTuple

from jaxmodels.speech.symbols import Symbols

STEP = 0.02  # seconds from one time's token to the next


class Span(NamedTuple):
    """Seconds from the start of the window, and the tokens of the text, without times."""

    start: float
    end: float
    tokens: list[int]


def spans(tokens: Sequence[int], symbols: Symbols, seconds: float) -> tuple[list[Span], float]:
    """(the segments of a window that has so many seconds of sound, seconds until the next window).

    Two times next to each other are the end of a segment and the start of the next. A last segment without
    an end is cut off by the window, so the next window starts where it does; where everything has an end,
    the next one follows this one.
    """
    times = symbols.times
    is_time = [token >= times for token in tokens]
    cuts = [i for i in range(1, len(tokens)) if is_time[i] and is_time[i - 1]]
    ended = len(tokens) > 1 and is_time[-1] and not is_time[-2]
    if not cuts:
        stamps = [token for token in tokens if token >= times]
        end = (stamps[-1] - times) * STEP if stamps and stamps[-1] != times else seconds
        start = (stamps[0] - times) * STEP if len(stamps) > 1 else 0.0
        return [_span(start, min(end, seconds) if seconds else end, tokens, symbols)], seconds
    pieces = [
        tokens[a:b] for a, b in zip([0, *cuts], [*cuts, *([len(tokens)] if ended else [])], strict=False)
    ]
    found = [
        _span((piece[0] - times) * STEP, (piece[-1] - times) * STEP, piece, symbols)
        for piece in pieces
        if piece
    ]
    if ended:
        return found, seconds
    last = (tokens[cuts[-1] - 1] - times) * STEP
    return found, last if 0 < last <= seconds else seconds


def _span(start: float, end: float, tokens: Sequence[int], symbols: Symbols) -> Span:
    start = max(0.0, start)
    return Span(start, max(start, end), [token for token in tokens if token < symbols.end])


def compression(text: str) -> float:
    """Bytes of a text over its bytes in zlib: high for a text that repeats itself."""
    content = text.encode()
    return len(content) / len(zlib.compress(content)) if content else 0.0
