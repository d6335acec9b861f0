"""What of a loaded model is exported: the arrays that its inputs become."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from jaxmodels import Model, Predictor
from jaxmodels.export.of_model import program_of

pytestmark = pytest.mark.fast

AREAS = Predictor(
    read=lambda row: {"area": np.asarray([row["area"]], np.float32)},
    predict=lambda params, extra, batch: params * batch["area"],
    report=lambda price: {"price": float(price[0])},
    input="row",
    fields=("area",),
)


@pytest.mark.parametrize("row", ['{"area": 100}', {"area": 100}], ids=["as typed", "from Python"])
def test_a_row_shows_the_arrays_of_a_model_of_rows(row):
    program = program_of(Model(Path("here"), np.float32(2), {}, AREAS), [row])
    assert [{key: x.tolist() for key, x in one.items()} for one in program.examples] == [{"area": [100.0]}]


@pytest.mark.parametrize("text", ["100", "area", '{"area": 1, "area": 2}', "[" * 100_000])
def test_a_row_that_is_no_object_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"--like: got .*; expected a row as a JSON object"):
        program_of(Model(Path("here"), np.float32(2), {}, AREAS), [text])
