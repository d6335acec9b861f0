"""Population-based training (arXiv:1711.09846): at times the worst members copy the best and change knobs.

All members are one population and share one program, whose inputs are the float knobs that change.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jaxmodels.sweeps.lockstep import Lockstep, Member
from jaxmodels.sweeps.members import Setup, loops_of
from jaxmodels.sweeps.statistics import member_score

PART = 5  # one in PART copies another, and as many are copied
FACTORS = (0.8, 1.25)


def evolve(setup: Setup, members: Sequence[Member], metric: str, goal: str, every: int, draws: int) -> float:
    """Trains the population; gives the seconds of compilation.

    every: steps between generations; 0 is a tenth of all. draws: the seed of what is drawn.
    """
    loops = loops_of(setup, members)
    if not loops:
        return 0.0
    if len(loops) > 1 or not loops[0].programs.inputs:
        raise ValueError(
            f"--search pbt: got members of {len(loops)} programs; expected members that share one program, "
            "whose float knobs change in training. Sweep float knobs alone, such as the rate, and the seed"
        )
    [loop] = loops
    steps = loop.first.steps
    every = every or max(1, steps // 10)
    for until in range((loop.reached // every + 1) * every, steps, every):
        states = loop.run(until)
        source, values = _generation(loop, metric, goal, np.random.default_rng([draws, until]))
        changed = sum(i != index for i, index in enumerate(source))
        if changed:
            setup.console.say(f"step {until:,}: {changed} of {len(source)} members copy another", "dim")
            copied = jax.tree.map(lambda x, source=source: x[np.asarray(source)], states)
            loop.take_over(copied, until, source, values)
    loop.run()
    loop.finish()
    return loop.programs.compile_s


def _generation(
    loop: Lockstep, metric: str, goal: str, random: np.random.Generator
) -> tuple[list[int], list[dict[str, float]]]:
    """(for each member the index of the one whose state it takes, its values of the knobs)."""
    members = zip(loop.metrics, loop.diverged, strict=True)
    scores = [member_score(metrics, diverged, metric, goal) for metrics, diverged in members]
    order = np.argsort(scores)
    part = max(1, len(scores) // PART)
    source, values = list(range(len(scores))), loop.current_values()
    for loser in order[:part]:
        winner = int(random.choice(order[-part:]))
        if scores[loser] < scores[winner]:
            source[loser] = winner
            values[loser] = {k: x * float(random.choice(FACTORS)) for k, x in values[winner].items()}
    return source, values
