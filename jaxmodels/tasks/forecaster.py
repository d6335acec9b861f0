"""A forecast from a person's own table of series, for `jaxmodels predict --table`.

    columns ──table──► checked series ──the last L steps, scaled──► model ──restored──► H steps, quantiles

Dimensions: N times, L steps of history, H of the horizon, T = L + H, C series, K known columns, S samples, Q
levels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from jaxmodels import choices
from jaxmodels.interfaces import Predictor

Kind = Literal["points", "quantiles", "samples"]
FIELDS = ("table", "horizon")  # of the row that the Predictor reads
MOST = 10_000  # steps ahead


def forecaster(
    predict: Callable[[Any, Any, Any], Any],
    *,
    table: Callable[[Mapping[str, np.ndarray]], Any],
    time: str,
    series: Sequence[str],
    history: int,
    horizon: int,
    kind: Kind = "points",
    levels: Sequence[float] = (),
    scaler: Callable[[], Any] | None = None,
    known: Callable[[np.ndarray], np.ndarray] | None = None,
    draw: Callable[..., np.ndarray] | None = None,
) -> Predictor:
    """The Predictor of a model of series: it reads {"table": columns by name, "horizon": steps ahead}.

    predict: what the model says: "points", BHC, of tasks.forecast.forecasts; "quantiles", BHCQ, of
        tasks.quantiles; or "samples", BSHC, of tasks.likelihood.futures, which go on for any horizon. The
        others give at most `horizon` steps.
    table: from columns to the checked series, as data.series.from_table gives it: partial(from_table,
        time="date", series=("shop",)). time, series: the columns' names. history: steps that the model sees.
    levels: of quantiles, or those that are taken of samples; the middle one is the forecast, the
        outermost are its interval.
    scaler: gives what training used, such as data.series.fitted; called for each forecast.
    known: from times (N) to the columns NK that are known ahead, where the model was trained with some.
    draw: data.forecast_drawing.forecast_chart, say.
    """
    choices.check("forecaster", "kind", kind, Kind)
    if (kind == "points") != (not levels):
        raise ValueError(
            f"forecaster: got {len(levels)} levels for {kind}; expected none for points and some for others. "
            "Change them"
        )

    def read(row: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found = table({name: np.asarray(column) for name, column in row["table"].items()})
        steps = _steps(row["horizon"], horizon, kind)
        value_NC = np.asarray(found.value_NC, np.float32)
        if len(value_NC) < history:
            raise ValueError(
                f"got {len(value_NC):,} steps of history; expected {history:,} or more, as many as the model "
                "sees. Give a longer table"
            )
        missing_C = np.isnan(value_NC[-history:]).all(0)
        if missing_C.any():
            name = series[int(missing_C.argmax())]
            raise ValueError(
                f"got no value of {name!r} in the last {history:,} steps; expected one at least. Fill some in"
            )
        value_LC = found.filled()[-history:]
        example = {
            "history": scaler().scale(value_LC) if scaler else value_LC,
            "ahead": np.zeros((steps, 1), np.float32),
        }
        if known is not None:
            times_T = np.concatenate([found.time_N[-history:], found.ahead(steps)])
            example["known"] = np.asarray(known(times_T), np.float32)
        return example

    def said(params, extra, batch):
        steps = batch["ahead"].shape[1]
        answer = predict(params, extra, batch)
        if kind == "samples":
            return jnp.moveaxis(jnp.quantile(answer, jnp.array(levels, jnp.float32), axis=1), 0, -1)
        answer = answer[..., None] if kind == "points" else answer
        return answer[:, :steps].astype(jnp.float32)

    def restored(answer_HCQ: np.ndarray) -> np.ndarray:
        if scaler is None:
            return answer_HCQ
        restore = scaler().restore
        return np.stack([restore(answer_HC) for answer_HC in np.moveaxis(answer_HCQ, -1, 0)], -1)

    def report(answer_HCQ: np.ndarray) -> dict[str, Any]:
        answer_HCQ = restored(answer_HCQ)
        columns: dict[str, Any] = {}
        for c, name in enumerate(series):
            columns[name] = answer_HCQ[:, c, len(levels) // 2].tolist()
            for q, level in enumerate(levels):
                if q != len(levels) // 2:
                    columns[f"{name}_{level:g}"] = answer_HCQ[:, c, q].tolist()
        return {"forecast": columns}

    def picture(row: Mapping[str, Any], answer_HCQ: np.ndarray) -> np.ndarray:
        assert draw is not None
        value_NC = np.asarray(table({n: np.asarray(x) for n, x in row["table"].items()}).value_NC)
        answer_HCQ = restored(answer_HCQ)
        seen = max(3 * len(answer_HCQ), 24)
        charts = []
        for c, name in enumerate(series):
            limits = (answer_HCQ[:, c, 0], answer_HCQ[:, c, -1]) if len(levels) > 2 else None
            share = f", {levels[0]:g} to {levels[-1]:g}" if limits else ""
            middle_H = answer_HCQ[:, c, len(levels) // 2]
            charts.append(draw(value_NC[-seen:, c], middle_H, interval=limits, title=name + share))
        return np.concatenate(charts)

    def settings() -> dict[str, Any]:
        return {
            "time": time,
            "series": [*series],
            "history": history,
            "horizon": horizon,
            "levels": [*levels],
        }

    return Predictor(read, said, report, draw and picture, "row", FIELDS, settings)


def _steps(asked: Any, horizon: int, kind: Kind) -> int:
    """How many to forecast; the model's own for 0."""
    steps = int(asked) or horizon
    most = MOST if kind == "samples" else horizon
    if not 1 <= steps <= most:
        why = "" if kind == "samples" else ", those that the model was trained to forecast at once"
        raise ValueError(
            f"got a horizon of {steps:,} steps; expected 1 to {most:,}{why}. Ask for fewer, or train with a "
            "longer one"
        )
    return steps
