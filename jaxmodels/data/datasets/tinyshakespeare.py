"""Tiny Shakespeare: 1,115,394 characters of plays (Karpathy's char-rnn), of 65 kinds; the last tenth
validates.

A token is the index of a character in ALPHABET. The split is nanoGPT's, so losses compare with its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from jaxmodels import choices
from jaxmodels.data import locate

ALPHABET = "\n !$&',-.3:;?ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FILES: locate.Files = {
    "input.txt": (1115394, "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed")
}
WHERE = "https://github.com/karpathy/char-rnn (data/tinyshakespeare)"


def tinyshakespeare(
    split: Literal["train", "validation"], *, folder: locate.PathLike | None = None
) -> np.ndarray:
    """The characters of a split as tokens, uint8, for WindowPipeline.

    folder: the folder with input.txt; else $JAXMODELS_DATA/tinyshakespeare, else
        ~/.cache/jaxmodels/data/tinyshakespeare.
    """
    choices.check("tinyshakespeare", "split", split, ("train", "validation"))
    tokens = _tokens(locate.folder("tinyshakespeare", folder))
    edge = int(0.9 * len(tokens))
    return tokens[:edge] if split == "train" else tokens[edge:]


def encode(text: str) -> list[int]:
    """Characters as tokens; those outside ALPHABET are skipped."""
    return [ALPHABET.index(character) for character in text if character in ALPHABET]


def decode(tokens: Sequence[int]) -> str:
    """Tokens as characters."""
    return "".join(ALPHABET[token] for token in tokens)


@cache
def _tokens(folder: Path) -> np.ndarray:
    locate.check(folder, FILES, where=WHERE)
    table = np.zeros(256, np.uint8)
    table[np.frombuffer(ALPHABET.encode(), np.uint8)] = np.arange(len(ALPHABET))
    return table[np.frombuffer((folder / "input.txt").read_bytes(), np.uint8)]
