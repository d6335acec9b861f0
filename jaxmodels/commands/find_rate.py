"""jaxmodels find-rate: a range test of the learning rate (arXiv:1506.01186, section 3.3): it rises until the loss does.

The experiment trains from its start with its own data and keys, by the runner; only its updates are scaled,
as if the rate rose by the same factor at each of them. Schedules stand still at their peak. Of two rates,
such as Muon's and Adam's, the first is the one that is named, and the other keeps its ratio to it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels.analysis.rate_curve import FAR, FIRST
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.optim import RateState
from jaxmodels.options import Options
from jaxmodels.runs import experiment_file
from jaxmodels.state import initial
from jaxmodels.training import runner

WIDE = 0.15  # decades of the rate: the deviation of the weights that smooth the loss
CERTAIN = 3.0  # standard errors by which the loss must fall


class _Enough(Exception):
    """The loss is so high that more steps say nothing."""


class _Rising(NamedTuple):
    """learning_rate: that of the last update, where the log finds it."""

    learning_rate: jax.Array
    updates: jax.Array
    inner: Any


def rising(
    optimizer: Any, low: float, high: float, updates: int, at: int = 0
) -> optax.GradientTransformation:
    """The optimizer, whose rate at update n is low (high / low)^(n / (updates - 1)), and whose schedules stay at `at`.

    Its updates must be proportional to its rate, as jaxmodels.optim's are but schedule-free ones, and the
    rate not 0 there.
    """

    def init(params):
        return _Rising(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(grads, state, params=None):
        changes, inner = optimizer.update(grads, _held(state.inner, at), params)
        wanted = low * (high / low) ** (state.updates.astype(jnp.float32) / (updates - 1))
        changes = jax.tree.map(lambda u: (u * (wanted / _rates(inner)[0])).astype(u.dtype), changes)
        return changes, _Rising(wanted, state.updates + 1, inner)

    return optax.GradientTransformation(init, update)


def _rates(state: Any) -> list[jax.Array]:
    leaves = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, RateState))
    return [x.learning_rate for x in leaves if isinstance(x, RateState)]


def _held(state: Any, at: Any) -> Any:
    """The state with all schedules at update `at`."""

    def held(x):
        return x._replace(updates=jnp.asarray(at, jnp.int32)) if isinstance(x, RateState) else x

    return jax.tree.map(held, state, is_leaf=lambda x: isinstance(x, RateState))


def find_rate(
    experiment: str | Path | experiment_file.File,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    updates: int = 200,
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """The losses of an experiment's file as its rate rises, {"rates", "losses", "smoothed"}, and what they say.

    "steepest": the rate at which the smoothed logarithm of the loss falls fastest over that of the rate, one
        to begin with;
    "least": that of the least smoothed loss, beyond which it rises. Both are None where the loss never falls
        clearly.
    "peak": the file's own highest rate. Raises ValueError for bounds that are none, and for rates that cannot
        be scaled.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"--low {low:g} --high {high:g}: wanted 0 < low < high, as in --low 1e-6 --high 10")
    if updates < 20:
        raise ValueError(
            f"--updates {updates}: wanted at least 20; a hundred or more make a curve that says something"
        )
    file = experiment_file.load(experiment)
    built: Experiment = file.build(experiment_file.make_config(file, knobs))
    at, peak = _peak(built)
    rate = rising(built.optimizer, low, high, updates, at)
    trial = dataclasses.replace(
        built, optimizer=rate, steps=updates, evals={}, log_every=1, best=None, baselines=dict
    )
    seen: list[tuple[float, float]] = []

    def note(step: int, values: Mapping[str, float]) -> None:
        if "train/loss" in values:
            seen.append((values["train/learning_rate"], values["train/loss"]))

    def enough(step: int) -> None:
        start = [abs(loss) for _, loss in seen[:FIRST]]
        if len(start) == FIRST and not abs(seen[-1][1]) < FAR * max(start):
            raise _Enough

    how = dataclasses.replace(options or Options(), on_nan="skip", steps_per_dispatch=1)
    with contextlib.suppress(_Enough):
        runner.run(trial, how, console=console, trackers=(note,), on_step=enough)
    rates, losses = np.array(seen).T if seen else np.zeros((2, 0))
    end = int(np.argmin(np.isfinite(losses))) if not np.isfinite(losses).all() else len(losses)
    curve = {
        "rates": rates[:end].tolist(),
        "losses": losses[:end].tolist(),
        **reading(rates[:end], losses[:end]),
    }
    return {"peak": peak, **curve}


def _peak(built: Experiment) -> tuple[int, float]:
    """At which update the experiment's first rate is highest, and that rate; of long runs to a thousandth of their steps."""
    if built.make_step is not None:
        raise ValueError(
            "the experiment has a step of its own (make_step), which may have several rates; wanted one loss"
        )
    abstract = jax.eval_shape(lambda: initial(built))

    def free(x):
        return type(x).__name__ == "ScheduleFreeState"

    if any(map(free, jax.tree.leaves(abstract.opt_state, is_leaf=free))) or not _rates(abstract.opt_state):
        raise ValueError(
            "the experiment's optimizer cannot be tried at other rates: wanted updates that are proportional to a rate, "
            "which its state tells; take one of jaxmodels.optim, not a schedule-free one"
        )

    def rate(at):  # compiled, nothing but the schedule is left of it
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), abstract.params)
        return _rates(built.optimizer.update(zeros, _held(built.optimizer.init(zeros), at), zeros)[1])[0]

    each = np.unique(np.linspace(0, max(0, built.steps - 1), 1000).astype(np.int32))
    rates = np.asarray(jax.jit(jax.vmap(rate))(each))
    at = int(np.argmax(rates))
    if not rates[at] > 0:
        raise ValueError(
            "the experiment's own rate is 0 at every step; wanted one above 0, which is then scaled"
        )
    return int(each[at]), float(rates[at])


def reading(rates: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """{"smoothed", "steepest", "least"} of the curve, by the loss's logarithm where there is one."""
    found: dict[str, Any] = {"smoothed": losses.tolist(), "steepest": None, "least": None}
    if len(losses) <= FIRST:
        return found
    log = bool((losses > 0).all())
    x, y = np.log10(rates), np.log(losses) if log else losses
    weights = np.exp(-0.5 * ((x[:, None] - x) / max(WIDE, 1.5 * (x[1] - x[0]))) ** 2)
    weights /= weights.sum(1, keepdims=True)
    smoothed = weights @ y
    found["smoothed"] = (np.exp(smoothed) if log else smoothed).tolist()
    least = int(np.argmin(smoothed))
    noise = float(np.std(np.diff(y[: max(FIRST, len(y) // 5)]))) / math.sqrt(2)
    error = noise * math.sqrt(1 / FIRST + float((weights[least] ** 2).sum()))
    if least <= FIRST or float(np.mean(y[:FIRST])) - smoothed[least] < CERTAIN * error:
        return found
    slopes = np.gradient(smoothed[: least + 1], x[: least + 1])
    return {
        **found,
        "steepest": float(rates[FIRST + int(np.argmin(slopes[FIRST:]))]),
        "least": float(rates[least]),
    }
