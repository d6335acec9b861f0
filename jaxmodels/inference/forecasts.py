"""A table of series in, the steps after it out: what `jaxmodels predict --table` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels.data.formats.tables import read_table
from jaxmodels.data.series import times_ahead
from jaxmodels.inference.answers_table import table_path, writing
from jaxmodels.inference.model import Model
from jaxmodels.runs.png import write_png


class Forecast(NamedTuple):
    """The steps after a table."""

    columns: dict[str, list[Any]]
    """The times, then each series: its forecast, and its quantiles under names as sales_0.05."""
    path: str
    """Where they are written; "" where nowhere."""
    picture: str
    """The drawing's path, likewise."""


def forecast(model: Model, table: str | Path, *, horizon: int = 0, out: str | Path = "") -> Forecast:
    """The steps that follow a table of series; see tasks.forecaster.

    horizon: steps; 0 is as many as the model was trained for. out: a table for them, beside which the drawing
    goes, under the same name with .png.
    """
    predictor = model.require_predictor()
    if "table" not in predictor.fields or "horizon" not in predictor.fields:
        raise ValueError(
            f"{model.source}: got --table for a model of other inputs; expected one of time series. Give it "
            "predictor=forecaster(…) of jaxmodels.tasks.forecaster, or leave out --table"
        )
    path = table_path(out) if str(out) else None
    if str(out) and path is None:
        raise ValueError(
            f"predict: got -o {out}; expected a table for a forecast. Give a path in .csv, .tsv, .jsonl or "
            ".parquet"
        )
    if horizon < 0:
        raise ValueError(f"predict: got --horizon {horizon}; expected 1 or more, or 0 for the model's own")
    columns = read_table(table)
    row = {"table": columns, "horizon": horizon}
    (answer,) = model([row])
    if answer.error:
        raise ValueError(answer.error if str(table) in answer.error else f"{table}: {answer.error}")
    series, time = answer.values["forecast"], str(predictor.settings()["time"])
    steps = len(next(iter(series.values())))
    found = {time: times_ahead(columns[time], steps), **series}
    picture = ""
    if path is not None:
        with writing(path) as spool:
            for values in zip(*found.values(), strict=True):
                spool.add({}, dict(zip(found, values, strict=True)))
        if predictor.draw is not None:
            picture = str(write_png(path.with_suffix(".png"), predictor.draw(row, answer.arrays)))
    return Forecast(found, "" if path is None else str(path), picture)
