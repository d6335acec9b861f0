"""Segments of a window's tokens, and where the next window starts, counted by hand."""

from __future__ import annotations

import pytest
from speech.small import SYMBOLS, TIMES

from jaxmodels.speech.subtitles import srt, timed
from jaxmodels.speech.transcriber import Segment
from jaxmodels.speech.windows import Span, compression, spans

pytestmark = pytest.mark.fast


def at(step):
    return TIMES + step


@pytest.mark.parametrize(
    ("tokens", "found", "next_window"),
    [
        # Two segments with their ends: the next window follows this one.
        ([at(0), 1, 2, at(5), at(6), 3, at(10)], [(0, 0.1, [1, 2]), (0.12, 0.2, [3])], 0.3),
        # The last segment is cut off: the next window starts where its text began.
        ([at(0), 1, 2, at(5), at(5), 3], [(0, 0.1, [1, 2])], 0.1),
        ([at(0), 1, at(5), at(6)], [(0, 0.1, [1])], 0.1),
        # One segment, with and without an end.
        ([at(1), 1, at(5)], [(0.02, 0.1, [1])], 0.3),
        ([at(0), 1], [(0, 0.3, [1])], 0.3),
        ([at(0)], [(0, 0.3, [])], 0.3),
        ([], [(0, 0.3, [])], 0.3),
        # An end at 0 s would start the same window again.
        ([at(0), at(0), 1], [(0, 0, [])], 0.3),
        # A time beyond the sound does not lead beyond it.
        ([at(0), 1, at(20), at(20), 2], [(0, 0.4, [1])], 0.3),
    ],
    ids=str,
)
def test_times_cut_a_window_into_segments(tokens, found, next_window):
    got, seconds = spans(tokens, SYMBOLS, 0.3)
    assert [(round(x.start, 6), round(x.end, 6), x.tokens) for x in got] == found
    assert seconds == pytest.approx(next_window) and all(isinstance(x, Span) for x in got)


def test_a_text_that_repeats_itself_compresses():
    assert compression("no no no no no no no no no no no no no no no no no no") > 2.4
    assert compression("And so, my fellow Americans") < 2.4
    assert compression("") == 0


def segment(start, end, text):
    return Segment(start, end, text, [], 0.0, 0.0, 1.0, 0.0)


def test_subtitles_are_numbered_and_have_hours():
    segments = [segment(0, 8.5, " And so"), segment(3671.25, 3672, " my\nfellow ")]
    assert srt(segments) == (
        "1\n00:00:00,000 --> 00:00:08,500\nAnd so\n\n2\n01:01:11,250 --> 01:01:12,000\nmy fellow\n"
    )
    assert timed(segments[1:]) == "01:01:11.250 → 01:01:12.000  my fellow"
