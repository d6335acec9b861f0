"""Tokenizers in files of SentencePiece, by its own library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from jaxmodels.data.formats.tokenizer_library import known_tokens, library
from jaxmodels.data.formats.tokenizer_settings import WRITE_TOKENIZER_JSON, Settings


class SentencePieceModel:
    """The model of a file, with the tokens that the files beside it add."""

    def __init__(self, path: Path, settings: Settings):
        content = path.read_bytes()
        if not content:  # the library takes this for a processor that is to be loaded later
            raise ValueError("it is empty")
        self._path = path
        self._model = library("sentencepiece").SentencePieceProcessor(model_proto=content)
        self.size: int = self._model.get_piece_size()
        self._extra: dict[int, str] = {}
        if settings.kind in ("T5", "MT5"):
            self._extra = {n: f"<extra_id_{99 - n + self.size}>" for n in range(self.size, self.size + 100)}
        for token in settings.added:
            if token.number is not None and token.number >= self.size:
                self._extra[token.number] = token.content
        self._special = {*self._extra.values(), *(token.content for token in settings.added)}

    def encode(self, text: str) -> list[int]:
        """The tokens of a text, which must hold no token of its own, such as </s>."""
        self._check(text)
        return self._model.encode(text)

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text."""
        for text in texts:
            self._check(text)
        return self._model.encode(list(texts))

    def _check(self, text: str) -> None:
        found = next((token for token in self._special if token in text), None)
        if found is not None:
            raise ValueError(
                f"{self._path}: got a text with {found!r}, which is a token of its own there; expected texts "
                f"without such tokens, where there is no tokenizer.json. {WRITE_TOKENIZER_JSON}, or remove "
                "it from the text"
            )

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; those that the model does not know have none."""
        parts: list[str] = []
        run: list[int] = []  # tokens of the model between added ones
        for token in [*known_tokens(tokens, max(self._extra, default=self.size - 1) + 1), None]:
            if token is not None and token not in self._extra:
                run += [token] if token < self.size else []
                continue
            parts.append(self._model.decode(run) if run else "")
            run = []
            parts.append("" if token is None else self._extra[token])
        return "".join(parts)

    def token(self, piece: str) -> int | None:
        """The number of a piece; None where there is no such piece."""
        number = self._model.piece_to_id(piece)
        if self._model.id_to_piece(number) == piece:
            return number
        return next((number for number, content in self._extra.items() if content == piece), None)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the model's own file."""
        Path(path).write_bytes(self._model.serialized_model_proto())
