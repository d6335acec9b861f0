"""Tables of labelled texts."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.formats.tables import read_csv
from jaxmodels.data.formats.text_table import text_table
from jaxmodels.data.split import split

pytestmark = pytest.mark.fast
OPTIONS = {"encode": lambda text: list(text.encode()), "classes": ("bad", "good"), "length": 4, "batch": 3}
ROWS = "text,label\nab,good\nabcdef,bad\n,good\n"
INPUTS = [[97, 98, 0, 0], [97, 98, 99, 100], [0, 0, 0, 0]]


@pytest.mark.parametrize("name", ["x.csv", "x.tsv", "x.jsonl"])
def test_a_file_gives_inputs_segments_and_labels(tmp_path, name):
    lines = [line.split(",") for line in ROWS.splitlines()]
    written = {
        "x.csv": ROWS,
        "x.tsv": ROWS.replace(",", "\t"),
        "x.jsonl": "".join(f'{{"text": "{text}", "label": "{label}"}}\n' for text, label in lines[1:]),
    }
    (tmp_path / name).write_text(written[name])
    batch = text_table(tmp_path / name, **OPTIONS).rows(0, 0, 3)
    assert batch["inputs"].tolist() == INPUTS
    assert batch["segments"].sum(1).tolist() == [2, 4, 0] and batch["label"].tolist() == [1, 0, 1]


def test_parts_of_one_table_with_other_columns_have_the_same_numbers(tmp_path):
    (tmp_path / "x.csv").write_text("stars,review\n" + "".join(f"{i % 3},text {i}\n" for i in range(12)))
    train, test = split(read_csv(tmp_path / "x.csv"), 3, by="stars")
    for part in (train, test):
        options = {**OPTIONS, "classes": (0, 1, 2), "batch": len(part["stars"])}
        data = text_table(part, text="review", label="stars", **options)
        assert (data.rows(0, 0, data.batch)["label"] == part["stars"]).all()


def test_what_does_not_fit_is_named(tmp_path):
    table = {"text": ["a", "b"], "label": np.array(["good", "fair"])}
    with pytest.raises(
        ValueError,
        match=r"got the label 'fair' in row 1, counted from 0; expected one of bad, good. Correct it",
    ):
        text_table(table, **OPTIONS).rows(0, 0, 1)
    with pytest.raises(ValueError, match=r"got no column 'label'; expected one of text"):
        text_table({"text": ["a"]}, **OPTIONS).rows(0, 0, 1)
    with pytest.raises(ValueError, match=r"got classes=\('a', 'a'\); expected each once"):
        text_table(table, **{**OPTIONS, "classes": ("a", "a")})
