from __future__ import annotations

import re
from typing import Literal

import pytest

from jaxmodels.sweeps import space
from jaxmodels.sweeps.space import Range

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
    ("text", "hint", "values"),
    [
        ("1e-4,3e-4", float, [1e-4, 3e-4]),
        ("0..3", int, [0, 1, 2, 3]),
        ("0..2,7", int, [0, 1, 2, 7]),
        ("1e-4..1e-1", float, Range(1e-4, 1e-1)),
        ("true,False", bool, [True, False]),
        ("a, b", str, ["a", "b"]),
        ("adam,sgd", Literal["sgd", "adam"], ["adam", "sgd"]),
        ("none,0.5", float | None, [None, 0.5]),
    ],
)
def test_values_are_read_as_their_knobs_type(text, hint, values):
    assert space.read("x", text, hint) == values


@pytest.mark.parametrize(
    ("text", "hint", "what"),
    [
        ("1,two", int, "expected int"),
        ("3..1", int, "Write 1..3"),
        ("1.0..0.1", float, "Write 0.1..1.0"),
        ("0.1..1.0,2.0", float, "stands alone"),
        ("rms", Literal["sgd", "adam"], "one of sgd, adam"),
        ("maybe", bool, "True or False"),
        ("1,1", int, "got a value twice"),
        ("1,2", dict, "can be swept"),
    ],
)
def test_what_is_no_value_is_named(text, hint, what):
    with pytest.raises(ValueError, match=what):
        space.read("x", text, hint)


def test_a_grid_has_every_combination_and_needs_values():
    assert space.grid({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    with pytest.raises(ValueError, match="--search random or halton"):
        space.grid({"a": Range(0.0, 1.0)})


def test_wide_ranges_of_positive_numbers_are_drawn_by_their_logarithm():
    assert Range(1e-4, 1e-2).value(0.5) == pytest.approx(1e-3)
    assert Range(0.0, 1.0).value(0.25) == 0.25
    assert Range(1.0, 5.0).value(0.5) == 3.0


def test_a_draw_takes_lists_apart_evenly():
    assert [space.draw({"a": ["x", "y"]}, [u])["a"] for u in (0.0, 0.49, 0.5, 1.0)] == ["x", "x", "y", "y"]


def test_names_hold_no_separator_of_folders():
    assert re.fullmatch("lr=0.1-data=a_b_c-[0-9a-f]{6}", space.name_of({"lr": 0.1, "data": "a/b c"}))
