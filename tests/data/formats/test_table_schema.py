"""Odd tables: what their columns are taken for, from the training rows alone, and how rows are read."""

from __future__ import annotations

import datetime
import json

import numpy as np
import pytest

from jaxmodels.data.formats.table_columns import SLOTS, learn_column
from jaxmodels.data.formats.table_schema import TableSchema, read_cells
from jaxmodels.data.formats.table_values import date_of, level_of, number_of

pytestmark = pytest.mark.fast

N = 40
CELLS = {
    "age": [str(20 + i % 17) for i in range(N)],
    "income": ["" if i % 4 == 0 else f"{1e6 * (i % 7):.2f}" for i in range(N)],
    "town": [("Bonn", "Aachen, West", 'the "old" one')[i % 3] for i in range(N)],
    "member": [("True", "false")[i % 2] for i in range(N)],
    "constant": ["7"] * N,
    "empty": ["", "NaN", " null ", "n/a"] * (N // 4),
    "customer": [str(1_000_000_000 + 977 * i) for i in range(N)],
    "row": [str(i + 1) for i in range(N)],
    "said": [f"a text of its own, {i}" for i in range(N)],
    "joined": [f"2024-01-{1 + i % 28:02}" for i in range(N)],
    "odd": ["broken" if i == 11 else str(i % 9) for i in range(N)],
}
TARGETS = [str(3.5 * i) for i in range(N)]


def learned(rows_N=range(N), **options):
    return TableSchema.learn(CELLS, TARGETS, rows_N, target="y", **options)


def kinds(schema):
    return {column.name: column.kind for column in schema.columns}


def test_every_column_is_taken_for_what_it_is_and_the_choice_is_said():
    schema = learned()
    ignored = dict.fromkeys(("constant", "empty", "customer", "row", "said"), "ignored")
    numbers = dict.fromkeys(("age", "income", "odd"), "number")
    assert kinds(schema) == {
        **dict.fromkeys(CELLS, ""),
        **ignored,
        **numbers,
        "town": "category",
        "member": "category",
        "joined": "date",
    }
    for line in (
        "constant  ignored: it is always '7'",
        "empty     ignored: no training row has a value",
        "customer  ignored: ids: whole numbers from 1,000,000,000",
        "said      ignored: ids or free text: 40 different values in 40 rows",
        "odd       number, mean 3.79487, deviation 2.60354, sometimes missing; no number, and so missing: 1",
        "y: a number, as its values are numbers, 40 different ones",
    ):
        assert line in schema.text, line


def test_nothing_is_learned_from_rows_that_do_not_train():
    rows_N = [i for i in range(N) if i != 11 and i % 3]  # without Bonn, and the broken cell
    schema = learned(rows_N)
    used = {column.name: column for column in schema.used}
    assert "Bonn" not in used["town"].levels and not used["odd"].missing and not used["odd"].invalid
    ages = np.array([float(CELLS["age"][i]) for i in rows_N])
    assert used["age"].mean == pytest.approx(ages.mean()) and used["age"].deviation == pytest.approx(
        ages.std()
    )
    found_NF = schema.matrix(CELLS, range(N))
    assert np.isfinite(found_NF).all() and found_NF.shape == (N, schema.width)
    place = sum(column.width for column in schema.used[: schema.fields.index("town")])
    assert found_NF[0, place] == 1 and found_NF[1, place] == 0  # the unknown town's place is the first
    changed = {**CELLS, "age": [cell if i in rows_N else "9e9" for i, cell in enumerate(CELLS["age"])]}
    assert TableSchema.learn(changed, TARGETS, rows_N, target="y") == schema


def test_features_are_standardized_with_a_mark_where_one_is_missing():
    schema = TableSchema.learn(
        {"x": ["1", "3", "", "5"] * 5, "c": ["a", "b", "a", ""] * 5}, TARGETS[:20], range(20), target="y"
    )
    spread = np.std([1, 3, 5])
    np.testing.assert_allclose(schema.features({"x": "5", "c": "a"}), [2 / spread, 0, 0, 1, 0], rtol=1e-6)
    np.testing.assert_allclose(schema.features({"x": None, "c": "b"}), [0, 1, 0, 0, 1])
    np.testing.assert_allclose(schema.features({"x": float("nan"), "c": None}), [0, 1, 1, 0, 0])
    np.testing.assert_array_equal(
        schema.features({"x": 3, "c": "a"}), schema.matrix({"x": ["3"], "c": ["a"]}, [0])[0]
    )


def test_a_cell_that_cannot_be_used_is_named_with_all_others_of_its_row():
    schema = learned()
    row = {name: cells[1] for name, cells in CELLS.items()}
    assert np.isfinite(schema.features(row)).all()
    with pytest.raises(ValueError, match="got 'old' for age; expected a finite number; got 'Mars' for town"):
        schema.features({**row, "age": "old", "town": "Mars"})
    with pytest.raises(ValueError, match="got '1e999' for income; expected a finite number"):
        schema.features({**row, "income": "1e999"})
    with pytest.raises(ValueError, match="got 'May' for joined; expected a date as in 2024-12-31"):
        schema.features({**row, "joined": "May"})


def test_a_schema_survives_json():
    schema = learned()
    assert TableSchema.of_json(json.loads(json.dumps(schema.as_json()))) == schema


def test_rare_categories_share_a_feature_and_are_known():
    cells = [f"c{i}" for i in range(SLOTS + 50) for _ in range(3)]
    column = learn_column("c", cells)
    assert len(column.levels) == SLOTS + 50 and column.width == SLOTS + 2
    found = column.features([column.value(level) for level in column.levels])
    assert (found.sum(1) == 1).all() and found[SLOTS:, -1].all() and not found[:SLOTS, -1].any()


@pytest.mark.parametrize(
    ("targets", "classes"),
    [
        (["no", "yes"] * 20, ("no", "yes")),
        ([True, False] * 20, ("false", "true")),
        (["10", "9", "2"] * 13 + ["2"], ("2", "9", "10")),
        ([1.0, 2.0] * 20, ("1", "2")),
        ([str(i / 7) for i in range(N)], ()),
        ([str(i) for i in range(N)], ()),
    ],
)
def test_the_target_decides_between_classes_and_a_number(targets, classes):
    assert TableSchema.learn(CELLS, targets, range(N), target="y").classes == classes


def test_what_was_decided_can_be_chosen():
    whole = ["1", "2"] * 20
    schema = TableSchema.learn(
        CELLS, whole, range(N), target="y", kind="number", chosen={"row": "number", "age": "category"}
    )
    assert schema.classes == () and schema.mean == 1.5 and "asked for" in schema.why
    assert kinds(schema)["row"] == "number" and kinds(schema)["age"] == "category"
    assert "as asked" in learned(chosen={"age": "ignored"}).text
    with pytest.raises(ValueError, match="got no column 'nowhere'; expected one of age, income"):
        learned(chosen={"nowhere": "number"})


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        (["a"] * N, "the target y with 1 different values"),
        ([f"a text {i}" for i in range(N)], "the target y with 40 different values in 40 rows"),
    ],
)
def test_a_target_that_cannot_be_learned_is_refused(targets, said):
    with pytest.raises(ValueError, match=said):
        TableSchema.learn(CELLS, targets, range(N), target="y")


def test_rows_without_a_target_and_broken_rows_are_left_out_and_said(tmp_path):
    path, said = tmp_path / "in.csv", []
    path.write_text("x,y\n" + "1,2\n" * 10 + '3,\n4,NA\n1,2,3\n"a ""b""\n",7\n')
    cells, targets = read_cells(path, "y", said.append)
    assert targets == ["2"] * 10 + ["7"] and cells == {"x": ["1"] * 10 + ['a "b"\n']}
    assert "1 rows cannot be read and are left out, such as row 13: got 3 values" in said[0]
    assert "2 rows have no y and are left out" in said[1]
    with pytest.raises(ValueError, match="expected one called 'z', the target"):
        read_cells(path, "z", said.append)


def test_cells_are_the_same_from_every_format():
    assert [level_of(x) for x in ("3.0", 3, 3.0, True, "TRUE", "", None, " a ", "1.50")] == [
        *("3", "3", "3", "true", "true", None, None, "a", "1.50")
    ]
    assert [number_of(x) for x in ("1e3", 7, " 2.5 ", "NaN", None, False)] == [1000, 7, 2.5, None, None, 0]
    for bad in ("1_000", "inf", "1e999", "x", [1], 10**400):
        with pytest.raises(ValueError):
            number_of(bad)
    assert date_of("1970-01-02") == date_of(datetime.date(1970, 1, 2)) == 1
    assert date_of("1970-01-01T12:00:00+02:00") == pytest.approx(10 / 24) and date_of("") is None
