"""Which settings a sweep trains: all combinations of the values, or some that are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np

from jaxmodels.runs import experiment_file
from jaxmodels.runs.knob_types import plain
from jaxmodels.sweeps import space, tpe

EARLY = ("halving", "hyperband", "pbt")  # kinds of search that stop or change members before their end


def split_knobs(
    file: experiment_file.File, knobs: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, space.Values]]:
    """(fixed knobs, values of the swept ones)."""
    hints = get_type_hints(file.config)
    unknown = {name: value for name, value in knobs.items() if name not in hints}
    experiment_file.make_config(file, unknown)  # refuses them by name
    fixed: dict[str, Any] = {}
    values: dict[str, space.Values] = {}
    for name, value in knobs.items():
        if isinstance(value, str) and hints[name] not in (str, Path):
            value = space.read(name, value, hints[name])
        if isinstance(value, list) and len(value) == 1:
            fixed[name] = value[0]
        elif isinstance(value, list):
            values[name] = [plain(x) for x in value]
        elif isinstance(value, space.Range):
            values[name] = value
        else:
            fixed[name] = value
    if not values:
        raise ValueError(
            "sweep: got one value of every knob; expected several of at least one. "
            "Give them, as in --lr 1e-4,3e-4 --seed 0..7"
        )
    return fixed, values


def choose(values: Mapping[str, space.Values], search: str, trials: int, draws: int) -> list[dict[str, Any]]:
    """The settings that a kind of search begins with; for tpe one of them."""
    if search == "grid" or (search in EARLY and not trials):
        if trials:
            raise ValueError(
                f"sweep: got --trials {trials} for a grid, which has all combinations; expected none. "
                "Draw from them with --search random or halton"
            )
        return space.grid(values)
    if trials < 1:
        raise ValueError(
            f"sweep: got --trials {trials} for --search {search}, which draws that many settings; "
            "expected 1 or more. Give it"
        )
    from scipy.stats import qmc

    drawn, repeated = split_seeds(values)
    if search == "random":
        units = np.random.default_rng(draws).random((trials, len(drawn)))
    elif search == "halton" or search in EARLY:
        units = qmc.Halton(len(drawn), rng=draws).random(trials)
    elif search == "tpe":
        units = np.full((1, len(drawn)), 0.5)
    else:
        raise ValueError(
            f"sweep: got --search {search}; expected grid, random, halton, tpe, {', '.join(EARLY)}. "
            "Give one of them"
        )
    settings = [space.draw(drawn, row) for row in units.tolist()]
    different = {repr(setting): setting for setting in settings}
    return [{**setting, **seed} for setting in different.values() for seed in space.grid(repeated)]


def split_seeds(
    values: Mapping[str, space.Values],
) -> tuple[dict[str, space.Values], dict[str, space.Values]]:
    """(values to draw from, seeds). Every setting is trained with every seed, so that settings compare."""
    repeated: dict[str, space.Values] = {
        name: x for name, x in values.items() if name == "seed" and not isinstance(x, space.Range)
    }
    drawn = {name: x for name, x in values.items() if name not in repeated}
    if not drawn:
        raise ValueError(
            "sweep: got several values of the seed alone; expected another knob to draw. "
            "Give it several values or a range"
        )
    return drawn, repeated


def tpe_search(
    values: Mapping[str, space.Values], trials: int, metric: str, goal: str, kept: Mapping[str, Any]
) -> tpe.Search:
    """What tpe searches. kept: the knobs that stay the same."""
    drawn, repeated = split_seeds(values)
    study = {"searched": drawn, "repeated": repeated, "knobs": kept, "metric": metric, "goal": goal}
    return tpe.Search(drawn, space.grid(repeated), trials, metric, goal, study)
