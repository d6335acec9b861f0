"""Tiny Shakespeare: 1,115,394 characters of plays (Karpathy's char-rnn), 65 different ones; the last tenth validates.

A token is a character's place in ALPHABET. The split is nanoGPT's, so that losses compare with its own.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate as files

ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FILES: dict[str, tuple[int, str | None]] = {
    "input.txt": (1115394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed")
}
WHERE = "https://github.com/karpathy/char-rnn (data/tinyshakespeare)"


def tinyshakespeare(
    split: Literal["train", "validation"], *, folder: str | os.PathLike[str] | None = None
) -> np.ndarray:
    """The characters of one side of the split in a row, uint8, for WindowPipeline.

    folder: where input.txt is; else $JAXMODELS_DATA/tinyshakespeare, else
        ~/.cache/jaxmodels/data/tinyshakespeare.
    """
    choices.check("tinyshakespeare", "split", split, ("train", "validation"))
    tokens = _tokens(files.folder("tinyshakespeare", folder))
    edge = int(0.9 * len(tokens))
    return tokens[:edge] if split == "train" else tokens[edge:]


def encode(text: str) -> list[int]:
    """Characters as tokens; those that Shakespeare's text has not are left out."""
    return [ALPHABET.index(character) for character in text if character in ALPHABET]


def decode(tokens: Sequence[int]) -> str:
    """Tokens as characters."""
    return "".join(ALPHABET[token] for token in tokens)


@cache
def _tokens(folder: Path) -> np.ndarray:
    files.check(folder, FILES, where=WHERE)
    table = np.zeros(256, np.uint8)
    table[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(len(ALPHABET))
    return table[np.frombuffer((folder / "input.txt").read_bytes(), np.uint8)]
