"""The text of tokens that follow a prompt, where a stop string ends it, and what of it is settled.

The text of a token depends on the tokens before it: many tokenizers give the first one no space. So a
continuation is decoded together with its prompt, and the prompt's text is removed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from jaxmodels.interfaces import Decoder

CONTEXT = 256  # last tokens of a prompt with which a continuation is decoded, at most


def reader(decoder: Decoder, prompt: Sequence[int]) -> Callable[[Sequence[int]], str]:
    """A function from tokens that follow this prompt to their text."""
    context = [] if decoder.source else list(prompt[-CONTEXT:])
    head = decoder.decode(context) if context else ""

    def read(tokens: Sequence[int]) -> str:
        text = decoder.decode([*context, *tokens])
        if text.startswith(head):
            return text[len(head) :]
        different = (i for i, (a, b) in enumerate(zip(head, text, strict=False)) if a != b)
        return text[next(different, min(len(head), len(text))) :]

    return read


def ending(
    read: Callable[[Sequence[int]], str], tokens: Sequence[int], first: int, stop: Sequence[str]
) -> tuple[str, int] | None:
    """The text before a stop string, and the number of its tokens; None without a stop string.

    The token that completes a stop string ends the text, however many tokens a burst has. Fewer than `first`
    tokens are known to hold none.
    """
    if until(stop, read(tokens)) is None:
        return None
    pieces = ((n, until(stop, read(tokens[:n]))) for n in range(first, len(tokens) + 1))
    count, text = next((n, text) for n, text in pieces if text is not None)
    while count and read(tokens[: count - 1]).startswith(text):
        count -= 1
    return text, count


def until(stop: Sequence[str], text: str) -> str | None:
    """The text before the first of the stop strings; None without one."""
    positions = [position for position in (text.find(s) for s in stop) if position >= 0]
    return text[: min(positions)] if positions else None


def settled(text: str, stop: Sequence[str]) -> str:
    """The part of an unfinished text that stays: without half a character or the start of a stop string."""
    text = text.rstrip("�")
    longest = max((n for s in stop for n in range(1, len(s)) if text.endswith(s[:n])), default=0)
    return text[: len(text) - longest]
