"""What commands need of a model beyond training: to predict on files, to show examples, to generate text.

Dimensions: B rows, T tokens of a prompt, N of them whose logits are wanted, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax

Input = Literal["image", "text", "row", "sound"]


class Predictor(NamedTuple):
    """What `jaxmodels predict` needs of a model: from an input, as people have it, to an answer with names.

    read(input) gives the arrays of one example, without the example axis, prepared as in training; a
        ValueError says what of the input cannot be used. Examples whose arrays have equal shapes are
        predicted together, so what has any length, such as a text, is padded here to one of a few lengths.
    predict(params, extra, batch) gives a pytree of arrays with a leading example axis; it is compiled.
    report(prediction) gives what is reported of one example, by name, as JSON values.
    draw(input, prediction) gives an image of the prediction: uint8, height x width x 3.
    settings() gives what somebody elsewhere needs for the same answers, by name, as JSON: the names of the
        classes, how inputs are prepared. It is called for an export, so it may read the data.
    input: what an input is. "image" and "sound": a path, or a binary file that is open for reading; "text": a
        str; "row": a dict with the values of `fields`.
    """

    read: Callable[[Any], dict[str, Any]]
    predict: Callable[[Any, Any, Mapping[str, Any]], Any]
    report: Callable[[Any], dict[str, Any]]
    draw: Callable[[Any, Any], Any] | None = None
    input: Input = "image"
    fields: tuple[str, ...] = ()
    settings: Callable[[], Mapping[str, Any]] = dict


class Display(NamedTuple):
    """What a report shows people of an example whose arrays are not for people.

    input(x) gives an example's input, without the example axis, as its text, or as the bytes of a WAV file
        (see jaxmodels.data.formats.audio.wav) or of a PNG file. Images need none.
    classes() gives the names of the classes; it is called when a report is made, so it may read the data.
    """

    input: Callable[[Any], str | bytes] | None = None
    classes: Callable[[], Sequence[str]] | None = None


class Decoder(NamedTuple):
    """What decoding needs of an autoregressive model.

    read(params, extra, tokens_BT, count_B, length) gives (logits_BV of the token after the prompt, cache):
        the first count_B tokens of each row are its prompt; the cache has room for `length` tokens in all.
    write(params, extra, tokens_B, cache) gives (logits_BV of the next token, cache with these tokens).
    extend(params, extra, tokens_BT, count_B, cache, index_BN) gives (logits_BNV of the token after each of
        these, cache): the first count_B tokens of each row, which may be none, follow those in the cache;
        index_BN: which of the T tokens to give logits after; None is all. Serving needs it; None: the
        model's cache cannot take several tokens.

    logits(params, extra, batch) gives logits_BTV of the token after each of batch["tokens"] (BT), without a
        cache; of a model with a source, batch["source"] (BS) is its text, and batch["source_segments"] (BS)
        is 0 where that is padding. Export needs it.

    Every array of the cache has the batch as its second axis, so that beam search can reorder the rows.
    """

    read: Callable[[Any, Any, jax.Array, jax.Array, int], tuple[jax.Array, Any]]
    write: Callable[[Any, Any, jax.Array, Any], tuple[jax.Array, Any]]
    encode: Callable[[str], Sequence[int]]
    decode: Callable[[Sequence[int]], str]
    length: int  # the most tokens that the model attends to or, with a source, generates
    begin: int | None = None  # put before every prompt
    end: int | tuple[int, ...] | None = None  # ends a text; each of several does
    prompt: str = ""  # the default prompt
    source: bool = False  # the prompt is a text to translate or transform, not one to continue
    extend: Callable[..., tuple[jax.Array, Any]] | None = None
    logits: Callable[[Any, Any, Mapping[str, Any]], jax.Array] | None = None

    @property
    def ends(self) -> tuple[int, ...]:
        """Every token that ends a text."""
        if isinstance(self.end, tuple):
            return self.end
        return () if self.end is None else (self.end,)


@dataclass(frozen=True)
class Target:
    """What a result should reach: `metric` of the evaluation `split`, at least or at most `value`."""

    metric: str
    value: float
    direction: Literal["higher", "lower"]  # which is better
    split: str = "test"
    source: str = ""  # of the value, in a few words
