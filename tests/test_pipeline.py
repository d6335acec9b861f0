"""The contract of data: what a subclass needs, and what it is without the optional abilities."""

from __future__ import annotations

import numpy as np
import pytest

import jaxmodels
from jaxmodels import pipeline
from jaxmodels.data.mixture import Mixture
from jaxmodels.data.mixup import Mixed
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.pipeline import Pipeline
from jaxmodels.training import resident
from jaxmodels.training.batches import is_bucketed, real_rows

pytestmark = pytest.mark.fast


class Bare(Pipeline):
    """No more than what every pipeline has."""

    def __init__(self, batch=1_000, steps=3):
        self.batch, self.steps = batch, steps
        kinds = {"image": ((2, 2, 1), np.float32), "label": ((), np.int32), "weight": ((), np.float32)}
        self.spec = {name: (shape, np.dtype(kind)) for name, (shape, kind) in kinds.items()}

    def rows(self, step, start, stop):
        zeros = {name: np.zeros((stop - start, *shape), dtype) for name, (shape, dtype) in self.spec.items()}
        return {**zeros, "weight": np.ones(stop - start, np.float32)}


def test_it_is_a_public_name():
    assert jaxmodels.Pipeline is pipeline.Pipeline


def test_without_rows_there_is_no_pipeline():
    with pytest.raises(TypeError, match=r"abstract.*rows"):
        Pipeline()


def test_every_optional_ability_has_a_default():
    data = Bare()
    assert data.indices(0, 0, 1_000) is None and data.resident() is None
    assert (data.columns(), list(data.broken()), data.lengths) == ({}, [], ())
    assert (data.seed, data.fingerprint(), data.describe()) == (None, "", "batches of 1,000")


def test_without_indices_every_row_is_an_example_and_the_host_makes_the_batches():
    data = Bare(batch=4)
    assert real_rows(data, 0).tolist() == [True] * 4
    assert not resident.can_reside(data) and not is_bucketed(data)


def test_arrays_that_can_lie_on_the_device_need_a_gather():
    class Resident(Bare):
        def resident(self):
            return {"x": np.zeros(3)}

    with pytest.raises(NotImplementedError, match=r"Resident has resident arrays and no gather\(\)"):
        Resident().gather({}, np.zeros(1, int))


@pytest.mark.parametrize("around", [Mixed, lambda data: Mixture({"one": (data, 1)}, batch=4)])
def test_a_pipeline_around_one_without_optional_abilities_has_none_either(around):
    data = around(Bare(batch=4))
    assert data.indices(0, 0, 4) is None and data.resident() is None and data.columns() == {}
    assert list(data.broken()) == [] and data.steps == 3
    assert data.rows(0, 0, 4)["weight"].tolist() == [1] * 4


def test_one_with_arrays_passes_its_abilities_on():
    arrays = {"image": np.zeros((8, 2, 2, 1), np.float32), "label": np.arange(8, dtype=np.int32)}
    plain = ArrayPipeline(arrays, batch=4, seed=3)
    mixed = Mixed(plain)
    assert mixed.fingerprint() == plain.fingerprint() != ""
    assert mixed.indices(1, 0, 4).tolist() == plain.indices(1, 0, 4).tolist()
    assert set(mixed.columns()) == {"label", "weight"}
