"""Word and character error rates: the edits that turn what was recognised into what was said.

A rate is (substitutions + deletions + insertions) / words of the references, over all texts together; it may
exceed 1. Of the alignments with the fewest edits, one with the most words in common is taken.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

Pair = tuple[Any, Any]  # a word of the reference and one of the hypothesis, None where there is none
EDIT, HIT = 1 << 32, -1  # costs: edits count first, then words in common


class Edits(NamedTuple):
    """Counts over one text or several."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """All edits."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def length(self) -> int:
        """Words of the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def rate(self) -> float:
        """The error rate; nan where neither text has a word, and inf where only the hypothesis has some."""
        if self.length:
            return self.errors / self.length
        return float("inf") if self.errors else float("nan")


def align(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> list[Pair]:
    """The words of both in pairs, with the fewest edits (Levenshtein, 1966)."""
    R, H = len(reference), len(hypothesis)
    cost = np.zeros((R + 1, H + 1), np.int64)
    cost[:, 0], cost[0] = EDIT * np.arange(R + 1), EDIT * np.arange(H + 1)
    for i, word in enumerate(reference, 1):
        kept = np.array([HIT if word == other else EDIT for other in hypothesis], np.int64)
        best = np.minimum(cost[i - 1, 1:] + EDIT, cost[i - 1, :-1] + kept)
        for j in range(1, H + 1):
            cost[i, j] = min(best[j - 1], cost[i, j - 1] + EDIT)
    pairs: list[Pair] = []
    i, j = R, H
    while i or j:
        both = HIT if i and j and reference[i - 1] == hypothesis[j - 1] else EDIT
        if i and j and cost[i, j] == cost[i - 1, j - 1] + both:
            i, j = i - 1, j - 1
            pairs.append((reference[i], hypothesis[j]))
        elif i and cost[i, j] == cost[i - 1, j] + EDIT:
            i -= 1
            pairs.append((reference[i], None))
        else:
            j -= 1
            pairs.append((None, hypothesis[j]))
    return pairs[::-1]


def count(pairs: Sequence[Pair]) -> Edits:
    """The edits of an alignment."""
    deletions = sum(said is None for _, said in pairs)
    insertions = sum(word is None for word, _ in pairs)
    hits = sum(word == said for word, said in pairs)
    return Edits(hits, len(pairs) - hits - deletions - insertions, deletions, insertions)


def edits(references: Sequence[Sequence[Hashable]], hypotheses: Sequence[Sequence[Hashable]]) -> Edits:
    """The edits of several texts, each a sequence of words."""
    if len(references) != len(hypotheses):
        raise ValueError(
            f"error rates: got {len(references)} references and {len(hypotheses)} hypotheses; expected one "
            "for each. Look at how they were made"
        )
    each = [count(align(r, h)) for r, h in zip(references, hypotheses, strict=True)]
    return Edits(*(sum(column) for column in zip(*each, strict=True))) if each else Edits()


def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """The rate of texts whose words are divided by spaces; see plain() for case and punctuation."""
    return edits([x.split() for x in references], [x.split() for x in hypotheses]).rate


def character_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """The rate of texts by characters, spaces included."""
    return edits(references, hypotheses).rate


def plain(text: str) -> str:
    """A text without case, punctuation and marks but apostrophes within words, words divided by one space."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join(re.findall(r"[^\W_]+(?:'[^\W_]+)*", text))


def shown(pairs: Sequence[Pair]) -> tuple[str, str]:
    """An alignment as two lines for a font of equal widths: the reference above the hypothesis.

    Where one has no word there are stars; words that differ are in capitals, as in NIST's sclite.
    """
    lines: tuple[list[str], list[str]] = [], []
    for word, said in pairs:
        both = ["" if x is None else str(x) for x in (word, said)]
        width = max(map(len, both))
        for line, x in zip(lines, both, strict=True):
            x = x or "*" * width
            line.append((x if word == said else x.upper()).ljust(width))
    return " ".join(lines[0]).rstrip(), " ".join(lines[1]).rstrip()


def score(
    words: Sequence[str], *, separator: str = " "
) -> Callable[[list[Any], list[Any]], dict[str, float]]:
    """For Evaluation.score, of the texts of jaxmodels.tasks.ctc against "labels": "wer", "cer" and more.

    words: of the labels 1, 2, ...: words, or letters with separator="". "deletions", "insertions" and
    "substitutions" are parts of the word error rate.
    """

    def text(labels: Any) -> str:
        return separator.join(words[label - 1] for label in labels if label)

    def of(predictions: list[Any], batches: list[Any]) -> dict[str, float]:
        said = [text(row) for found in predictions for row in np.asarray(found.tokens)]
        real = [text(row) for batch in batches for row in np.asarray(batch["labels"])]
        found = edits([x.split() for x in real], [x.split() for x in said])
        length = max(1, found.length)
        parts = {name: getattr(found, name) / length for name in ("substitutions", "deletions", "insertions")}
        return {"wer": found.rate, "cer": character_error_rate(real, said), **parts}

    return of
