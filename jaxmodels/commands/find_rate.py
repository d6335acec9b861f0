"""jaxmodels find-rate: a range test of the learning rate (arXiv:1506.01186, section 3.3).

The runner trains the experiment from its start, with its own data and keys, while the rate rises by the same
factor at each update until the loss does. Schedules stay at their peak.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodels.console import Console
from jaxmodels.options import Options

if TYPE_CHECKING:
    from jaxmodels.experiment import Experiment
    from jaxmodels.runs.experiment_file import File


@dataclass(frozen=True, kw_only=True)
class FindRateOptions:
    """Which rates are tried."""

    low: float = 1e-6
    """The first rate."""
    high: float = 10.0
    """The last rate."""
    updates: int = 200
    """Updates from the first to the last."""
    folder: str = ""
    """Where curve.json and curve.html are written; by default runs/find-rate-NAME."""


class _Enough(Exception):
    """The loss is so high that more steps tell nothing."""


def find_rate(
    experiment: str | Path | File,
    *,
    low: float = FindRateOptions.low,
    high: float = FindRateOptions.high,
    updates: int = FindRateOptions.updates,
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """{"rates", "losses", "smoothed", "steepest", "least", "peak"} of an experiment's file as its rate rises.

    "steepest": the rate at which the smoothed logarithm of the loss falls fastest over that of the rate, a
        peak to begin with.
    "least": the rate of the lowest smoothed loss, beyond which it rises. Both are None where the loss never
        falls clearly.
    "peak": the file's own highest rate. Raises ValueError for bounds without a range, and for rates that
        cannot be scaled.
    """
    import numpy as np

    from jaxmodels.analysis.rate_curve import FAR, FIRST, read_curve
    from jaxmodels.optim.range_test import rising
    from jaxmodels.runs import experiment_file
    from jaxmodels.training import runner

    if not 0 < low < high < math.inf:
        raise ValueError(
            f"find-rate: got --low {low:g} --high {high:g}; expected 0 < low < high, as in --low 1e-6 --high "
            "10. Change them"
        )
    if updates < 20:
        raise ValueError(
            f"find-rate: got --updates {updates}; expected at least 20. Give a hundred or more for a clear "
            "curve"
        )
    file = experiment_file.load(experiment)
    built: Experiment = file.build(experiment_file.make_config(file, knobs))
    peak_update, peak = _peak(built)
    optimizer = rising(built.optimizer, low, high, updates, peak_update)
    trial = dataclasses.replace(
        built,
        optimizer=optimizer,
        steps=updates,
        evals={},
        target=None,
        log_every=1,
        best=None,
        baselines=dict,
    )
    points: list[tuple[float, float]] = []  # rate, loss

    def record(step: int, values: Mapping[str, float]) -> None:
        if "train/loss" in values:
            points.append((values["train/learning_rate"], values["train/loss"]))

    def stop_when_far(step: int) -> None:
        start = [abs(loss) for _, loss in points[:FIRST]]
        if len(start) == FIRST and not abs(points[-1][1]) < FAR * max(start):
            raise _Enough

    each_step = dataclasses.replace(options or Options(), on_nan="skip", steps_per_dispatch=1)
    with contextlib.suppress(_Enough):
        runner.run(trial, each_step, console=console, trackers=(record,), on_step=stop_when_far)
    rates, losses = np.array(points).T if points else np.zeros((2, 0))
    end = int(np.argmin(np.isfinite(losses))) if not np.isfinite(losses).all() else len(losses)
    rates, losses = rates[:end], losses[:end]
    return {
        "peak": peak,
        "rates": rates.tolist(),
        "losses": losses.tolist(),
        **read_curve(rates, losses),
    }


def write(path: str, found: dict[str, Any], folder: Path) -> Path:
    """Writes curve.json, and curve.html where there is a curve and plotly; gives the file to look at."""
    from jaxmodels.analysis.rate_curve import FIRST
    from jaxmodels.report.rate_page import rate_page
    from jaxmodels.runs.files import write_text

    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "curve.json", json.dumps({"file": path, **found}) + "\n")
    (folder / "curve.html").unlink(missing_ok=True)
    if len(found["rates"]) > FIRST and importlib.util.find_spec("plotly"):
        write_text(folder / "curve.html", rate_page(Path(path).name, found).html())
        return folder / "curve.html"
    return folder / "curve.json"


def _peak(built: Experiment) -> tuple[int, float]:
    """(update, rate) where the experiment's first rate is highest, to within a thousandth of the steps."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jaxmodels.optim.range_test import held_at, rates_in
    from jaxmodels.state import initial

    if built.make_step is not None:
        raise ValueError(
            "find-rate: got an experiment with its own step (make_step), which may have several rates; "
            "expected one with a single loss. Try rates with jaxmodels sweep"
        )
    abstract = jax.eval_shape(lambda: initial(built))

    def is_schedule_free(x):
        return type(x).__name__ == "ScheduleFreeState"

    leaves = jax.tree.leaves(abstract.opt_state, is_leaf=is_schedule_free)
    if any(map(is_schedule_free, leaves)) or not rates_in(abstract.opt_state):
        raise ValueError(
            "find-rate: got an optimizer that cannot be tried at other rates; expected updates that are "
            "proportional to a rate, which the optimizer's state holds. Use one of jaxmodels.optim that is "
            "not schedule-free"
        )

    def rate(update):  # compiled, only the schedule is left of it
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract.params)
        state = held_at(built.optimizer.init(zeros), update)
        return rates_in(built.optimizer.update(zeros, state, zeros)[1])[0]

    updates = np.unique(np.linspace(0, max(0, built.steps - 1), 1000).astype(np.int32))
    rates = np.asarray(jax.jit(jax.vmap(rate))(updates))
    highest = int(np.argmax(rates))
    if not rates[highest] > 0:
        raise ValueError(
            "find-rate: got an experiment whose own rate is 0 at every step; expected one above 0, which is "
            "then scaled. Set the file's rate"
        )
    return int(updates[highest]), float(rates[highest])
