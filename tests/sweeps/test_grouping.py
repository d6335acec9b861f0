from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmodels.options import Options
from jaxmodels.runs import experiment_file
from jaxmodels.sweeps import space
from jaxmodels.sweeps.grouping import groups, same

pytestmark = pytest.mark.fast
FILE = Path(__file__).parents[1] / "files" / "swept.py"


@pytest.fixture(scope="module")
def file():
    return experiment_file.load(FILE)


def grouped(file, **values):
    return groups(file, [file.config(**knobs) for knobs in space.grid(values)], Options())


@pytest.mark.slow
def test_numbers_and_the_seed_are_inputs_of_one_program(file):
    [group], notes = grouped(file, lr=[0.1, 0.2], decay=[0.0, 0.01], smoothing=[0.0, 0.1], seed=[0, 1])
    assert (len(group.indices), group.inputs, notes) == (16, ("lr", "decay", "smoothing"), [])


@pytest.mark.slow
def test_what_changes_the_structure_is_a_program_of_its_own(file):
    found, notes = grouped(file, lr=[0.1, 0.2], width=[4, 8], kind=["sgd", "adam"], seed=[0, 1])
    assert [len(group.indices) for group in found] == [4] * 4 and notes == []
    assert sorted(i for group in found for i in group.indices) == list(range(16))


def test_a_knob_whose_value_is_asked_for_is_named_with_its_line(file):
    found, [note] = grouped(file, momentum=[0.5, 0.9], lr=[0.1, 0.2])
    assert [(len(group.indices), group.inputs) for group in found] == [(2, ("lr",))] * 2
    line = next(i for i, text in enumerate(FILE.read_text().splitlines(), 1) if "config.momentum > 0" in text)
    assert note.startswith("momentum cannot be an input") and f"line {line} of" in note


def test_a_knob_of_the_data_cannot_be_an_input(file):
    found, [note] = grouped(file, noise=[0.0, 0.1])
    assert len(found) == 2 and "train depends on it" in note


def test_steps_that_differ_are_apart(file):
    assert len(grouped(file, steps=[12, 24], lr=[0.1, 0.2])[0]) == 2


@pytest.mark.slow
def test_a_seed_that_changes_the_program_is_compiled_for_each(tmp_path):
    text = FILE.read_text().replace("(config.width,), 3", "(config.width + config.seed,), 3")
    (tmp_path / "wider.py").write_text(text)
    found, [note] = grouped(experiment_file.load(tmp_path / "wider.py"), seed=[0, 1], lr=[0.1, 0.2])
    assert len(found) == 2 and "seed changes the program" in note


def test_pipelines_are_the_same_where_all_their_parts_are(file):
    def made(**knobs):
        return file.build(file.config(**knobs))

    assert same(made().train, made(lr=0.3).train)
    assert not same(made().train, made(seed=1).train)
    assert not same(made().train, made(noise=0.1).train)
    assert same(made(seed=3).evals["test"], made().evals["test"])


def test_in_doubt_things_are_not_the_same():
    assert not same(object(), object())
    assert same(lambda: 1, (f := lambda: 1)) is False and same(f, f)
    assert not same(np.zeros(2), np.zeros(3)) and not same([1], (1,))
    assert same({"a": [1, np.ones(2)]}, {"a": [1, np.ones(2)]})
    assert not same(jax.numpy.zeros(2), jax.numpy.ones(2))
