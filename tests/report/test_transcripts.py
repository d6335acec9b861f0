"""A recogniser in a report: its errors, and alignments of the worst texts with their sounds."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.formats.audio import wav
from jaxmodels.report.page import Page
from jaxmodels.report.transcripts import add_transcripts, transcripts, with_contents

pytest.importorskip("plotly", reason="needs plotly")
WORDS = ("one", "two", "<b>")


def test_texts_are_summed_up_and_the_worst_come_first():
    found = transcripts([[1, 2, 0], [1, 1, 3], [2, 0, 0]], [[1, 2], [1, 2], [2]], WORDS)
    assert (found.texts, found.exact) == (3, 2) and found.edits.rate == 2 / 6
    assert [one.number for one in found.worst] == [1, 0, 2]
    assert sorted(found.errors) == sorted([("one", "", 1), ("<b>", "two", 1)])


def test_a_page_plays_the_sound_above_its_alignment():
    found = transcripts([[3, 2]], [[3, 1]], WORDS)
    document = Page("x")
    add_transcripts(document, "test", with_contents(found, {0: wav(np.zeros(8), 8_000)}), 7)
    html = document.html()
    assert ": error rate 0.5000 (1 substitutions, 0 deletions, 0 insertions)" in html
    assert '<audio controls preload="metadata" aria-label="example 0" src="data:audio/wav;base64,' in html
    assert "<pre>&lt;b&gt; TWO\n&lt;b&gt; ONE</pre>" in html and "Texts of test" in html
