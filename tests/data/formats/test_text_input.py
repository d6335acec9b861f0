"""Texts, and questions with their contexts, as arrays of one example."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jaxmodels.data.datasets.squad import Question, Squad
from jaxmodels.data.formats.text_input import question_windows, text_example, window_begins

pytestmark = pytest.mark.fast

CONTEXT = "It was Ada, in 1843, who wrote the first program for a machine that was never built. " * 4
SIZES = {"first": 1, "between": 2, "stride": 6}


def encode(text):
    found = [*re.finditer(r"\w+|[^\w\s]", text)]
    return [3 + len(part[0]) for part in found], [part.span() for part in found]


def test_a_text_gets_the_smallest_length_that_holds_it():
    example = text_example([5, 6, 7], (8, 2, 4))
    assert example["inputs"].tolist() == [5, 6, 7, 0] and example["segments"].tolist() == [1, 1, 1, 0]
    assert text_example(range(1, 100), (2, 4))["inputs"].tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="got a text without a token"):
        text_example([], (4,))


def test_windows_overlap_and_end_with_the_context():
    assert window_begins(5, 8, 3) == [0] and window_begins(8, 8, 3) == [0]
    assert window_begins(15, 8, 3) == [0, 3, 6, 7]


def test_the_windows_of_a_row_are_those_of_training():
    squad = Squad("train", encode=encode, length=24, asked=5, **SIZES)
    question = Question("1", "Who wrote the first program then?", CONTEXT, ("Ada",), (7,))
    theirs = squad._make_windows([question])
    row = {"question": question.text, "context": CONTEXT}
    ours = question_windows(row, encode=encode, lengths=(12, 24), asked=5, **SIZES)
    count = len(theirs.arrays["inputs"])
    assert count > 4 and len(ours["window_inputs"]) == 1 << (count - 1).bit_length()
    for name in ("inputs", "segments", "types", "context"):
        np.testing.assert_array_equal(ours[f"window_{name}"][:count], theirs.arrays[name])
        assert not ours[f"window_{name}"][count:].any()
    np.testing.assert_array_equal(ours["window_characters"][:count], theirs.characters_BT2)
    assert "".join(map(chr, ours["letters"])).rstrip("\0") == CONTEXT


def test_a_short_row_is_one_short_window():
    ours = question_windows({"question": "Who?", "context": "Ada"}, encode=encode, lengths=(8, 24), **SIZES)
    assert ours["window_inputs"].tolist() == [[1, 6, 4, 2, 6, 2, 0, 0]]


@pytest.mark.parametrize("row", [{"question": " ", "context": "x"}, {"question": "x", "context": 7}])
def test_a_row_without_texts_is_refused(row):
    with pytest.raises(ValueError, match="expected a text"):
        question_windows(row, encode=encode, lengths=(8,), **SIZES)
