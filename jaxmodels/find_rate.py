"""jaxmodels find-rate: a range test of the learning rate (arXiv:1506.01186, section 3.3): it rises until the loss does.

The experiment trains from its start with its own data and keys, by the runner; only its updates are scaled, as if the rate
rose by the same factor at each of them. Of two rates, such as Muon's and Adam's, the first is the one that is named, and the
other keeps its ratio to it.
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

from jaxmodels import loading, runner
from jaxmodels.console import Console, number
from jaxmodels.experiment import Experiment
from jaxmodels.options import Options
from jaxmodels.watch import plot

MEMORY = 0.9  # of the smoothed loss, in each step
FIRST = 10  # losses that say how high it was at the beginning
FAR = 4.0  # times that, from where on more steps say nothing
KNOBS = ("lr", "learning_rate", "rate")  # names under which a file may have its rate


class _Enough(Exception):
    """The loss is so high that more steps say nothing."""


class _Rising(NamedTuple):
    """learning_rate: that of the last update, where the log finds it."""

    learning_rate: jax.Array
    updates: jax.Array
    inner: Any


def rising(optimizer: Any, low: float, high: float, updates: int) -> optax.GradientTransformation:
    """The optimizer, whose rate at update n is low (high / low)^(n / (updates - 1)).

    Its updates must be proportional to its rate, which its state must tell, as jaxmodels.optim's do but schedule-free ones.
    """

    def init(params):
        return _Rising(jnp.zeros((), jnp.float32), jnp.zeros((), jnp.int32), optimizer.init(params))

    def update(grads, state, params=None):
        changes, inner = optimizer.update(grads, state.inner, params)
        own = jnp.asarray(optax.tree.get_all_with_path(inner, "learning_rate")[0][1], jnp.float32)
        wanted = low * (high / low) ** (state.updates.astype(jnp.float32) / (updates - 1))
        changes = jax.tree.map(lambda u: (u * (wanted / own)).astype(u.dtype), changes)
        return changes, _Rising(wanted, state.updates + 1, inner)

    return optax.GradientTransformation(init, update)


def find_rate(
    experiment: str | Path,
    *,
    low: float = 1e-6,
    high: float = 10.0,
    updates: int = 200,
    options: Options | None = None,
    console: Console | None = None,
    **knobs: Any,
) -> dict[str, Any]:
    """The losses of an experiment's file as its rate rises, {"rates", "losses", "smoothed"}, and what they say.

    "steepest": the rate at which the smoothed loss falls fastest over the logarithm of the rate, one to begin with; "least":
    that of the least smoothed loss, beyond which it rises. Both are None where the loss never falls clearly.
    """
    if not 0 < low < high < math.inf:
        raise ValueError(f"--low {low:g} --high {high:g}: wanted 0 < low < high, as in --low 1e-6 --high 10")
    if updates < 20:
        raise ValueError(f"--updates {updates}: wanted at least 20; a hundred or more make a curve that says something")
    file = loading.load(experiment)
    built: Experiment = file.build(loading.make_config(file, knobs))
    _check(built)
    rate = rising(built.optimizer, low, high, updates)
    trial = dataclasses.replace(built, optimizer=rate, steps=updates, evals={}, log_every=1, best=None, baselines=dict)
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
    return {"rates": rates[:end].tolist(), "losses": losses[:end].tolist(), **reading(rates[:end], losses[:end])}


def _check(built: Experiment) -> None:
    if built.make_step is not None:
        raise ValueError("the experiment has a step of its own (make_step), which may have several rates; wanted one loss")
    state = jax.eval_shape(lambda: runner.initial(built)).opt_state
    kinds = {type(x).__name__ for x in jax.tree.leaves(state, is_leaf=lambda x: type(x).__name__ == "ScheduleFreeState")}
    if "ScheduleFreeState" in kinds or not optax.tree.get_all_with_path(state, "learning_rate"):
        raise ValueError(
            "the experiment's optimizer cannot be tried at other rates: wanted updates that are proportional to a rate, "
            "which its state tells; take one of jaxmodels.optim, not a schedule-free one"
        )


def reading(rates: np.ndarray, losses: np.ndarray) -> dict[str, Any]:
    """{"smoothed", "steepest", "least"} of the curve."""
    smoothed, mean = [], 0.0
    for n, loss in enumerate(losses.tolist()):
        mean = MEMORY * mean + (1 - MEMORY) * loss
        smoothed.append(mean / (1 - MEMORY ** (n + 1)))
    found: dict[str, Any] = {"smoothed": smoothed, "steepest": None, "least": None}
    if len(smoothed) < FIRST:
        return found
    least = int(np.argmin(smoothed))
    noise = float(np.std(np.diff(losses[: max(10, len(losses) // 5)]))) / math.sqrt(2)
    if least < FIRST or float(np.mean(losses[:FIRST])) - smoothed[least] < 1.5 * noise:
        return found
    slopes = np.gradient(np.array(smoothed[: least + 1]), np.log(rates[: least + 1]))
    return {**found, "steepest": float(rates[int(np.argmin(slopes))]), "least": float(rates[least])}


def show(path: str, found: dict[str, Any], knobs: list[str], console: Console, width: int = 72) -> None:
    """The curve, and what to take from it."""
    rates, smoothed = np.array(found["rates"]), np.array(found["smoothed"])
    if not len(rates):
        console.say(
            "the loss was not finite at the first step; lower --low, or look at the data with jaxmodels train", "bold"
        )
        return
    start = float(np.mean(found["losses"][:FIRST]))
    back = np.nonzero((smoothed > start) & (np.arange(len(rates)) > int(np.argmin(smoothed))))[0]
    shown = slice(0, int(back[0]) + 1 if len(back) else len(rates))  # until it is as high as at the beginning
    lines = plot(smoothed[shown], width)
    margin = len(lines[0]) - len(lines[0].lstrip()) if lines else 0
    console.say(f"{path}: the smoothed loss as the rate rises", "bold")
    for line in lines:
        console.say(line)
    first, last = f"{rates[0]:.0e}", f"{rates[shown][-1]:.0e}"
    console.say(" " * margin + first + last.rjust(max(1, width - margin - len(first))), "dim")
    if found["steepest"] is None:
        console.say(
            "\nthe loss did not fall by more than its noise at any rate: try a higher --high, or more --updates", "bold"
        )
        return
    more = " (and it falls still: --high goes further)" if found["least"] == rates[-1] else ""
    console.say(f"\nsteepest at {found['steepest']:.1e}, least at {found['least']:.1e}{more}, loss {number(min(smoothed))}")
    name = next((name for name in KNOBS if name in knobs), None)
    if name:
        option = f"--{name.replace('_', '-')} {found['steepest']:.2g}"
        console.say(f"  begin with   jaxmodels train {path} {option}", "bold")
