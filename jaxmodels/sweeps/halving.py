"""Early stopping: successive halving (arXiv:1502.07943), and Hyperband's brackets of it (arXiv:1603.06560).

At each rung the settings are ranked by the mean of their seeds, and one in ETA goes on. Schedules are those
of the whole length, so whoever goes on is at every step what it would have been alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from jaxmodels.sweeps.lockstep import Lockstep, Member
from jaxmodels.sweeps.members import Setup, compiled_s, loops_of, new_folder
from jaxmodels.sweeps.statistics import worth

ETA = 3  # of so many settings one goes on


def depth_of(settings: int) -> int:
    """How many rungs leave one of so many settings."""
    return int(math.log(settings, ETA) + 1e-9) if settings > 1 else 0


def rungs(steps: int, settings: int, depth: int) -> list[tuple[int, int]]:
    """(step, settings that go on from there) of each rung but the end."""
    return [
        (steps // ETA**s, max(1, settings // ETA ** (depth - s + 1)))
        for s in range(depth, 0, -1)
        if steps >= ETA**s
    ]


def brackets(members: Sequence[Member], seed: str) -> list[tuple[list[Member], int]]:
    """Hyperband's (members, rungs) pairs, from many rungs to none; each bracket costs about as much."""
    of_setting = settings_of(members, seed)
    depth = depth_of(len(of_setting))
    shares = [ETA**s / (s + 1) for s in range(depth, -1, -1)]
    ends = [round(len(of_setting) * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    parts = [list(of_setting.values())[a:b] for a, b in itertools.pairwise([0, *ends])]
    return [([m for of in part for m in of], depth - i) for i, part in enumerate(parts) if part]


def settings_of(members: Sequence[Member], seed: str) -> dict[str, list[Member]]:
    """Members by their knobs without the seed."""
    found: dict[str, list[Member]] = {}
    for member in members:
        found.setdefault(repr({k: v for k, v in member.knobs.items() if k != seed}), []).append(member)
    return found


def halve(
    setup: Setup, members: Sequence[Member], seed: str, metric: str, goal: str, depth: int | None = None
) -> float:
    """Trains members, fewer from rung to rung; gives the seconds spent on compiling. Goes on where it was stopped."""
    steps = {setup.file.build(m.config).steps for m in members}
    if len(steps) > 1:
        raise ValueError(
            f"halving compares settings at the same steps; these are of {sorted(steps)} steps: sweep them apart"
        )
    total, length = settings_of(members, seed), steps.pop()
    ended = {m.name for m in members if (setup.path / "members" / m.name / "result.json").exists()}
    loops = loops_of(setup, [m for m in members if m.name not in ended])
    reached, first = max((loop.reached for loop in loops), default=0), loops
    depth = depth_of(len(total)) if depth is None else depth
    for step, kept in [*rungs(length, len(total), depth), (length, 0)]:
        if step < reached:
            continue
        states = [loop.run(step) for loop in loops]
        if step == length:
            for loop in loops:
                loop.finish()
            break
        scores = {name: _score(loops, of, metric, goal) for name, of in total.items()}
        ranked = sorted(
            (-score, i, name) for i, (name, score) in enumerate(scores.items()) if score is not None
        )
        alive = [name for _, _, name in ranked]
        going_on = {m.name for name in alive[:kept] for m in total[name]}
        setup.console.say(f"step {step:,}: {min(kept, len(alive))} of {len(alive)} settings go on")
        narrower = []
        for loop, state in zip(loops, states, strict=True):
            places = [i for i, m in enumerate(loop.members) if m.name in going_on]
            if places:
                narrower.append(loop.narrowed(state, step, places, new_folder(setup.path)))
            loop.finish({i: f"stopped at step {step:,}" for i in range(len(loop.members)) if i not in places})
        loops = narrower
    return compiled_s(first)


def _score(loops: Sequence[Lockstep], members: Sequence[Member], metric: str, goal: str) -> float | None:
    """The mean of the metric over the members, more is better; None where none is left."""
    names = {m.name for m in members}
    found = [
        worth(metrics, lost, metric, goal)
        for loop in loops
        for member, metrics, lost in zip(loop.members, loop.metrics, loop.diverged, strict=True)
        if member.name in names
    ]
    return sum(found) / len(found) if found else None
