"""jaxmodels predict --table: what a person's table lacks is said, and what follows it is forecast."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.series import Scaler, from_table, times_ahead
from jaxmodels.inference.forecasts import forecast
from jaxmodels.inference.model import Model
from jaxmodels.interfaces import Predictor
from jaxmodels.tasks.forecaster import forecaster

SCALER = Scaler(np.array([100.0, 0.0]), np.array([10.0, 1.0]))


def model(kind="points", levels=(), **options) -> Model:
    """Forecasts the last value, and 1 more at each further step; as samples, 0 to 100 above that."""

    def predict(params, extra, batch):
        steps = batch["ahead"].shape[1] if kind == "samples" else 3
        step_BHC = batch["history"][:, -1:] + jnp.arange(steps, dtype=jnp.float32)[:, None]
        if kind == "points":
            return step_BHC
        return step_BHC[:, None] + jnp.arange(101.0)[:, None, None]

    read = partial(from_table, time="date", series=("a", "b"))
    sizes = {"time": "date", "series": ("a", "b"), "history": 4, "horizon": 3}
    return Model(
        Path("run"), {}, {}, forecaster(predict, table=read, kind=kind, levels=levels, **sizes, **options)
    )


def table(
    path, dates=("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"), a=(1, 2, 3, 4), b=(9, 9, 9, 5)
):
    rows = [",".join(map(str, row)) for row in zip(dates, a, b, strict=True)]
    path.write_text("\n".join(["date,a,b", *rows]))
    return path


def test_points_are_given_in_the_tables_units_and_times(tmp_path):
    found = forecast(model(scaler=lambda: SCALER), table(tmp_path / "t.csv"), out=tmp_path / "out.csv")
    assert found.columns["date"] == ["2024-01-05", "2024-01-06", "2024-01-07"]
    np.testing.assert_allclose(found.columns["a"], [4, 14, 24], atol=1e-4)
    np.testing.assert_allclose(found.columns["b"], [5, 6, 7], atol=1e-5)
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "date,a,b" and lines[1].startswith("2024-01-05,") and found.picture == ""


def test_samples_go_on_beyond_the_horizon_and_give_quantiles_and_a_drawing(tmp_path):
    drawn = []

    def draw(history_N, forecast_H, *, interval, title):
        drawn.append((history_N, interval, title))
        return np.zeros((2, 2, 3), np.uint8)

    asked = model("samples", (0.1, 0.5, 0.9), draw=draw)
    found = forecast(asked, table(tmp_path / "t.csv"), horizon=5, out=tmp_path / "out.csv")
    assert found.columns["a"] == [54, 55, 56, 57, 58] and found.columns["a_0.1"] == [14, 15, 16, 17, 18]
    assert [*found.columns] == ["date", "a", "a_0.1", "a_0.9", "b", "b_0.1", "b_0.9"]
    assert (tmp_path / "out.png").is_file() and drawn[0][0].tolist() == [1, 2, 3, 4]
    assert drawn[1][1][1].tolist() == [95, 96, 97, 98, 99] and drawn[1][2] == "b, 0.1 to 0.9"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dates": ("2024-01-01", "2024-01-02", "2024-01-03", "2024-01-05")},
            "expected steps of 86400 seconds",
        ),
        ({"dates": ("2024-01-01", "2024-01-02", "2024-01-02", "2024-01-03")}, "row 2, which is there twice"),
        (
            {"dates": ("2024-01-02", "2024-01-01", "2024-01-03", "2024-01-04")},
            "row 1, which is before the one",
        ),
        ({"dates": ("may", "june", "july", "august")}, "expected numbers, or dates as 2016-07-01"),
        ({"a": (1, 2, "many", 4)}, "'a': got texts"),
        ({"dates": range(5), "a": (1, "", "", "", ""), "b": range(5)}, "got no value of 'a' in the last 4"),
        (
            {"dates": ("1", "2", "3"), "a": (1, 2, 3), "b": (1, 2, 3)},
            "got 3 steps of history; expected 4 or more",
        ),
    ],
)
def test_gaps_duplicates_disorder_texts_and_a_short_table_are_said(change, message, tmp_path):
    with pytest.raises(ValueError, match=message) as raised:
        forecast(model(), table(tmp_path / "t.csv", **change))
    assert "t.csv" in str(raised.value)


def test_a_missing_value_is_the_last_one_before_it(tmp_path):
    path = table(tmp_path / "t.csv", a=(1, 2, 3, ""))
    assert forecast(model(), path, horizon=1).columns["a"] == [3]


def test_what_the_model_cannot_forecast_is_said(tmp_path):
    path = table(tmp_path / "t.csv")
    with pytest.raises(
        ValueError, match="got a horizon of 4 steps; expected 1 to 3, those that the model was"
    ):
        forecast(model(), path, horizon=4)
    with pytest.raises(ValueError, match="got --horizon -1; expected 1 or more"):
        forecast(model(), path, horizon=-1)
    with pytest.raises(ValueError, match=r"t\.json: got a name that ends in \.json"):
        forecast(model(), path, out=tmp_path / "t.json")
    other = Model(Path("run"), {}, {}, Predictor(dict, dict, dict, fields=("size",)))
    with pytest.raises(ValueError, match="run: got --table for a model of other inputs"):
        forecast(other, path)
    with pytest.raises(ValueError, match="got 2 levels for points; expected none"):
        model(levels=(0.1, 0.9))


def test_the_next_times_are_written_as_those_before():
    assert times_ahead(np.array(["1960-11", "1960-12"]), 2) == ["1961-01", "1961-02"]
    assert times_ahead(np.array(["2024-02-28", "2024-02-29"]), 1) == ["2024-03-01"]
    assert times_ahead(np.array(["2024-01-01 22:00:00", "2024-01-01 23:00:00"]), 1) == ["2024-01-02 00:00:00"]
    assert times_ahead(np.array([3, 5]), 2) == [7, 9]
    with pytest.raises(ValueError, match="got 1 times; expected two or more"):
        times_ahead(np.array([3]), 2)
