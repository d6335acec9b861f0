"""Early stopping: successive halving (arXiv:1502.07943), and Hyperband's brackets of it (arXiv:1603.06560).

At each rung the settings are ranked by the mean over their seeds, and one in ETA goes on. Schedules are for
the full length, so a member that goes on has at every step the state of the same run alone.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from jaxmodels.sweeps.lockstep import Lockstep, Member
from jaxmodels.sweeps.members import Setup, compiled_s, loops_of, new_folder
from jaxmodels.sweeps.statistics import member_score

ETA = 3  # one in ETA settings goes on


def depth_of(settings: int) -> int:
    """The number of rungs that leave one of n settings."""
    return int(math.log(settings, ETA) + 1e-9) if settings > 1 else 0


def rungs(steps: int, settings: int, depth: int) -> list[tuple[int, int]]:
    """(step, settings that go on from there) of each rung but the end."""
    return [
        (steps // ETA**s, max(1, settings // ETA ** (depth - s + 1)))
        for s in range(depth, 0, -1)
        if steps >= ETA**s
    ]


def brackets(members: Sequence[Member], seed: str) -> list[tuple[list[Member], int]]:
    """Hyperband's (members, rungs) pairs, from many rungs to none; all brackets cost about the same."""
    by_setting = list(settings_of(members, seed).values())
    depth = depth_of(len(by_setting))
    shares = [ETA**s / (s + 1) for s in range(depth, -1, -1)]
    ends = [round(len(by_setting) * sum(shares[: i + 1]) / sum(shares)) for i in range(len(shares))]
    result = []
    for i, (start, stop) in enumerate(itertools.pairwise([0, *ends])):
        if start < stop:
            result.append((list(itertools.chain(*by_setting[start:stop])), depth - i))
    return result


def settings_of(members: Sequence[Member], seed: str) -> dict[str, list[Member]]:
    """Members by their knobs without the seed."""
    by_setting: dict[str, list[Member]] = {}
    for member in members:
        knobs = {name: value for name, value in member.knobs.items() if name != seed}
        by_setting.setdefault(repr(knobs), []).append(member)
    return by_setting


def halve(
    setup: Setup, members: Sequence[Member], seed: str, metric: str, goal: str, depth: int | None = None
) -> float:
    """Trains members, fewer from rung to rung; gives the seconds of compilation.

    A halving that was stopped goes on. depth: the number of rungs, by default as many as leave one setting.
    """
    steps = {setup.file.build(m.config).steps for m in members}
    if len(steps) > 1:
        raise ValueError(
            f"--search halving: got settings of {sorted(steps)} steps; expected one number, since it "
            "compares settings at the same step. Sweep them apart"
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
        scores = {setting: _score(loops, members, metric, goal) for setting, members in total.items()}
        finite = [(setting, score) for setting, score in scores.items() if score is not None]
        alive = [setting for setting, _ in sorted(finite, key=lambda pair: -pair[1])]
        going_on = {member.name for setting in alive[:kept] for member in total[setting]}
        setup.console.say(f"step {step:,}: {min(kept, len(alive))} of {len(alive)} settings go on")
        narrower = []
        for loop, state in zip(loops, states, strict=True):
            indices = [i for i, m in enumerate(loop.members) if m.name in going_on]
            if indices:
                narrower.append(loop.narrowed(state, step, indices, new_folder(setup.path)))
            losers = [i for i in range(len(loop.members)) if i not in indices]
            loop.finish(dict.fromkeys(losers, f"stopped at step {step:,}"))
        loops = narrower
    return compiled_s(first)


def _score(loops: Sequence[Lockstep], members: Sequence[Member], metric: str, goal: str) -> float | None:
    """The mean score of the members that still train, more is better; None for none."""
    names = {m.name for m in members}
    scores = []
    for loop in loops:
        for member, metrics, diverged in zip(loop.members, loop.metrics, loop.diverged, strict=True):
            if member.name in names:
                scores.append(member_score(metrics, diverged, metric, goal))
    return sum(scores) / len(scores) if scores else None
