"""Tables of recordings and texts."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.formats.audio import wav
from jaxmodels.data.formats.audio_table import audio_table

pytest.importorskip("soundfile", reason="needs soundfile")
pytestmark = pytest.mark.fast


@pytest.fixture
def table(tmp_path):
    for i in range(3):
        (tmp_path / f"{i}.wav").write_bytes(wav(np.full(4 + i, 0.25 * i), 8_000))
    (tmp_path / "t.csv").write_text("file,text\n0.wav,ab\n1.wav,b\n2.wav,\n")
    return tmp_path / "t.csv"


def read(table, **options):
    settings = {
        "rate": 8_000,
        "samples": 6,
        "labels": 3,
        "batch": 3,
        "encode": lambda x: [" ab".index(c) for c in x],
    }
    return audio_table(table, **{**settings, **options})


def test_a_row_is_a_recording_and_the_labels_of_its_text(table):
    data = read(table)
    batch = data.rows(0, 0, 3)
    assert batch["labels"].tolist() == [[1, 2, 0], [2, 0, 0], [0, 0, 0]]
    assert batch["segments"].sum(1).tolist() == [4, 5, 6]
    np.testing.assert_allclose(batch["audio"][2], 0.5, atol=1e-4)
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"samples": 5}, "got in row 2, counted from 0, 6 samples"),
        (
            {"labels": 1},
            r"got in row 0, .* the labels \[1, 2\] \(2 of them\); expected at most 6 and 1, from 1",
        ),
        ({"encode": lambda x: [0]}, r"the labels \[0\]"),
        ({"text": "said"}, "got no column 'said'; expected one of file, text"),
    ],
    ids=["long", "labels", "blank", "column"],
)
def test_what_does_not_fit_is_named_by_its_row(table, options, said):
    with pytest.raises(ValueError, match=said):
        read(table, **options).rows(0, 0, 3)


def test_a_file_that_is_not_there_is_named(table):
    (table.parent / "1.wav").unlink()
    with pytest.raises(FileNotFoundError, match=r"1\.wav"):
        read(table).rows(0, 0, 3)
