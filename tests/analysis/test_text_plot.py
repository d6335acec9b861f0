"""A curve as lines of text: its width, its axis and its labels."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.analysis.text_plot import HEIGHT, plot

pytestmark = pytest.mark.fast


@pytest.mark.parametrize("width", [20, 80])
def test_a_plot_has_the_width_that_there_is_and_its_lowest_and_highest_value(width):
    lines = plot(np.concatenate([np.linspace(1, 0, 1000), [np.nan]]), width)
    assert len(lines) == HEIGHT and max(map(len, lines)) <= max(width, 18)
    assert lines[0].split()[0].startswith("0.9") or lines[0].split()[0].startswith("1")
    filled = ["".join(line[at] for line in lines).strip() for at in (max(map(len, lines)) // 2, -1)]
    assert len(filled[0]) > 2 and filled[1] == "▁"  # at the end it is low
    assert plot(np.array([1.0]), 80) == []


def test_values_of_several_sizes_are_shown_by_their_logarithms():
    lines = plot(np.geomspace(1.0, 1e-4, 1000), 80)
    names = [line[:10].split()[0] for line in lines if line[:8].strip()]
    assert [float(name) for name in names] == pytest.approx([1.0, 1e-2, 1e-4], rel=0.1)
    middle = max(map(len, lines)) // 2
    assert len("".join(line[middle] for line in lines).strip()) in (4, 5)


def test_values_near_each_other_have_names_that_tell_them_apart():
    for values in (np.linspace(0.12341, 0.12344, 50), np.linspace(1e-9, 1.00001e-9, 50)):
        lines = plot(values, 60)
        named = [word for line in lines for word in line.split()[:1] if word[0].isdigit()]
        assert max(map(len, lines)) <= 60
        assert len({*named}) == len(named) == 3
