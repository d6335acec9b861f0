"""Text that follows a JSON schema: which tokens may come next, by llguidance.

A token counts where its text is known by itself: a token with a part of a character is never allowed, so
that strings hold the characters which have a token of their own. JSON is written without spaces between its
parts. A text of limited length may end before its JSON does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from jaxmodels.interfaces import Decoder

LONGEST = 1 << 16  # characters of a schema
_INSTALL = "pip install 'jaxmodels[schema]'"


class Schemas:
    """The tokens of a decoder, as matchers of schemas need them."""

    def __init__(self, decoder: Decoder, vocabulary: int):
        try:
            import llguidance
        except ImportError as error:
            raise ValueError(
                f"schema: got a JSON schema, and llguidance is not installed; expected it. Do: {_INSTALL}"
            ) from error
        self._library = llguidance
        self.ends = decoder.ends
        self.words = (vocabulary + 32) // 32  # of a mask; the end of a model without one is one more token
        self._tokenizer = llguidance.LLTokenizer(
            llguidance.TokenizerWrapper(_Tokens(decoder, vocabulary)),
            n_vocab=vocabulary + (not self.ends),
            eos_token=list(self.ends) or vocabulary,
        )

    def matcher(self, schema: str) -> Matcher:
        """A matcher of one text; a ValueError says what is wrong with the schema."""
        if len(schema) > LONGEST:
            raise ValueError(
                f"schema: got {len(schema)} characters; expected at most {LONGEST}. Shorten the schema."
            )
        matcher = self._library.LLMatcher
        try:
            grammar = matcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
            wrong = matcher.validate_grammar(grammar, self._tokenizer)
            made = matcher(self._tokenizer, grammar, log_level=0)
            wrong = wrong or made.get_error()
        except ValueError as error:
            wrong = str(error)
        if wrong:
            first = wrong.strip().splitlines()[0][:300]
            raise ValueError(
                f"schema: got one that cannot be followed ({first}); expected a JSON schema of what "
                "llguidance knows. Change the schema."
            )
        return Matcher(made, self.words, bool(self.ends))


class Matcher:
    """Where one text stands in its schema."""

    def __init__(self, matcher: Any, words: int, has_end: bool):
        self._matcher, self._words, self._has_end = matcher, words, has_end

    def mask(self) -> np.ndarray:
        """The tokens that may come next, one bit each, in words of 32 bits; the lowest bit first.

        None may where the schema turned out to be beyond llguidance's limits: `add` says so then.
        """
        words = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        if self._matcher.is_error():
            return np.zeros(self._words, np.uint32)
        return np.pad(words, (0, max(0, self._words - len(words))))[: self._words]

    def add(self, token: int) -> Literal["goes on", "complete", "failed"]:
        """Takes the token that was drawn. Without an end token a text is complete once its JSON is valid."""
        if not self._matcher.consume_token(token) or self._matcher.is_error():
            return "failed"
        complete = self._matcher.is_stopped() or (not self._has_end and self._matcher.is_accepting())
        return "complete" if complete else "goes on"


class _Tokens:
    """The texts of all tokens, in the form that llguidance asks for."""

    def __init__(self, decoder: Decoder, vocabulary: int):
        anchor = next(iter(decoder.encode("a")), 0)
        head = decoder.decode([anchor])
        special = {*decoder.ends, *(() if decoder.begin is None else (decoder.begin,))}
        self.tokens: list[bytes] = []
        for token in range(vocabulary):
            text = decoder.decode([anchor, token])
            text = text.removeprefix(head) if text.startswith(head) else ""
            if token in special or not text or "\ufffd" in text:
                special.add(token)
                self.tokens.append(b"\xff<%d>" % token)  # no UTF-8 text holds the first byte
            else:
                self.tokens.append(text.encode())
        if not decoder.ends:
            special.add(vocabulary)
            self.tokens.append(b"\xff<end>")
        self.special_token_ids = sorted(special)
        self.eos_token_id = decoder.ends[0] if decoder.ends else vocabulary
        self.bos_token_id = decoder.begin
        self._decoder = decoder

    def __call__(self, text: str | bytes) -> Sequence[int]:
        return list(self._decoder.encode(text.decode() if isinstance(text, bytes) else text))
