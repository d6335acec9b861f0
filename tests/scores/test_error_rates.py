"""Edits, their rates and alignments: against jiwer and hand counts."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.scores.error_rates import (
    Edits,
    align,
    character_error_rate,
    count,
    edits,
    plain,
    score,
    shown,
    word_error_rate,
)

pytestmark = pytest.mark.fast
WORDS = st.lists(st.sampled_from("abcd"), max_size=9)


@given(st.lists(st.tuples(WORDS.filter(bool), WORDS), min_size=1, max_size=4))
def test_rates_and_counts_are_those_of_jiwer(pairs):
    jiwer = pytest.importorskip("jiwer", reason="needs jiwer")
    references, hypotheses = ([" ".join(x) for x in column] for column in zip(*pairs, strict=True))
    want = jiwer.process_words(references, hypotheses)
    got = edits([x.split() for x in references], [x.split() for x in hypotheses])
    assert got.errors == want.substitutions + want.deletions + want.insertions
    assert got.length == want.hits + want.substitutions + want.deletions
    assert word_error_rate(references, hypotheses) == pytest.approx(want.wer)
    assert character_error_rate(references, hypotheses) == pytest.approx(jiwer.cer(references, hypotheses))


@given(WORDS, WORDS)
def test_an_alignment_holds_both_texts_in_order(reference, hypothesis):
    pairs = align(reference, hypothesis)
    assert [a for a, _ in pairs if a is not None] == reference
    assert [b for _, b in pairs if b is not None] == hypothesis
    assert count(pairs).errors <= max(len(reference), len(hypothesis))
    assert count(align(hypothesis, reference)).errors == count(pairs).errors


def test_the_reference_stands_above_the_hypothesis():
    pairs = align(["one", "two", "three", "five"], ["one", "tree", "five", "six"])
    assert count(pairs) == Edits(2, 1, 1, 1)
    assert shown(pairs) in (
        ("one TWO THREE five ***", "one *** TREE  five SIX"),
        ("one TWO  THREE five ***", "one TREE ***** five SIX"),
    )
    assert shown([]) == ("", "")


def test_rates_of_empty_texts_say_so():
    assert math.isnan(word_error_rate([""], [""])) and math.isinf(word_error_rate([""], ["x"]))
    assert word_error_rate(["a b"], [""]) == 1 and word_error_rate(["a"], ["a b c"]) == 2
    with pytest.raises(ValueError, match="got 1 references and 2 hypotheses; expected one for each"):
        edits(["a"], ["a", "b"])


def test_case_punctuation_and_spaces_are_plain():
    assert plain("  Don’t PANIC, it's “fine” — 3rd-class ") == "don't panic it's fine 3rd class"


def test_a_score_joins_all_batches():
    found = [
        SimpleNamespace(tokens=np.array([[1, 2, 0, 0], [2, 0, 0, 0]])),
        SimpleNamespace(tokens=np.array([[3]])),
    ]
    batches = [{"labels": np.array([[1, 2, 3], [2, 0, 0]])}, {"labels": np.array([[1, 0, 0]])}]
    got = score(("on", "off", "up"))(found, batches)
    assert got == pytest.approx(
        {"wer": 2 / 5, "cer": 5 / 14, "substitutions": 0.2, "deletions": 0.2, "insertions": 0}
    )
