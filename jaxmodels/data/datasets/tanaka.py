"""Short sentences in Japanese and English (the Tanaka corpus, as small_parallel_enja): 50,000 pairs and 500
+ 500.

The sentences are in lower case and already divided into words, 4 to 16 each. Both languages share one list of
8,189 words: three special ones, then the 4,093 most common ones of the training sentences in Japanese, then
those in English.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal

from jaxmodels import choices
from jaxmodels.data import locate
from jaxmodels.runs.learned import learned

WORDS = 8189
UNKNOWN, BEGIN, END = 0, 1, 2
SPECIAL = ["<unk>", "<s>", "</s>"]
FILES: locate.Files = {
    "train.ja": (2784447, "fc81a1434349ec98a449d7ae9cd2530057f689637684ecfed3501ea6a8a07ecc"),
    "train.en": (1701356, "148b05dcd28638fe20ee84f2b1127001c80982be352007dda241fb759adadc76"),
    "dev.ja": (27781, "cd534f56b8639dc130f86a365e5ec0aa70042000bdd740a622fbbf8b6be4acca"),
    "dev.en": (17054, "04a2673449770657fd5e3b963cb856be3130923212b6db8ac7eaeef18f06c041"),
    "test.ja": (27793, "d37dc460a81b064e4106c8913eb11fa300da05cf3f58a7a5bbfec7e20947ddef"),
    "test.en": (17301, "45edb380749ec2b49cca7618fc5a7595fc9f791180672ba466b90c873a4aa8bf"),
    "train.ja.vocab.4k": (31009, "07222c9b4682b90c674554556183cc8d8eb61897f4f62c0bedd6c26c665a947e"),
    "train.en.vocab.4k": (30025, "afaf88e38434392981dbc2f0be1d7b9ab91caf5199e13f759b72ab5f423c8548"),
}
WHERE = "https://github.com/odashi/small_parallel_enja"

Split = Literal["train", "dev", "test"]


def sentences(split: Split, *, folder: locate.PathLike | None = None) -> list[tuple[str, str]]:
    """Pairs (Japanese, English) of sentences, their words between spaces.

    folder: the folder with the files; else $JAXMODELS_DATA/tanaka_enja, else
        ~/.cache/jaxmodels/data/tanaka_enja.
    """
    choices.check("tanaka", "split", split, Split)
    path = _checked(locate.folder("tanaka_enja", folder))
    japanese, english = ((path / f"{split}.{name}").read_text("utf-8").splitlines() for name in ("ja", "en"))
    return list(zip(japanese, english, strict=True))


def encode(sentence: str, *, folder: locate.PathLike | None = None) -> list[int]:
    """The tokens of the words between spaces; UNKNOWN for words that are not in the list."""
    numbers = _numbers(locate.folder("tanaka_enja", folder))
    return [numbers.get(word, UNKNOWN) for word in sentence.split()]


def decode(tokens: Sequence[int], *, folder: locate.PathLike | None = None) -> str:
    """The words of these tokens, between spaces."""
    words = list(_numbers(locate.folder("tanaka_enja", folder)))
    return " ".join(words[token] for token in tokens)


@cache
def _checked(folder: Path) -> Path:
    locate.check(folder, FILES, where=WHERE)
    return folder


@cache
def _numbers(folder: Path) -> dict[str, int]:
    """The token of each word, in order."""
    words = learned("tanaka: words", lambda: _words(folder))
    return {word: number for number, word in enumerate(words)}


def _words(folder: Path) -> list[str]:
    lists = [
        (_checked(folder) / f"train.{name}.vocab.4k").read_text("utf-8").splitlines() for name in ("ja", "en")
    ]
    words = dict.fromkeys(SPECIAL + lists[0] + lists[1])
    assert len(words) == WORDS, len(words)
    return list(words)
