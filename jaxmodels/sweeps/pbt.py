"""Population-based training (arXiv:1711.09846): now and then the worst take over the best's states and change their knobs.

All members are one population of one structure; what changes are the float knobs that are inputs of their
program.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from jaxmodels.sweeps.lockstep import Lockstep, Member
from jaxmodels.sweeps.members import Setup, loops_of
from jaxmodels.sweeps.statistics import worth

PART = 5  # one in so many takes over, and as many are taken over from
FACTORS = (0.8, 1.25)


def evolve(setup: Setup, members: Sequence[Member], metric: str, goal: str, every: int, draws: int) -> float:
    """Trains the population; gives the seconds spent on compiling. every: steps between generations, 0 is a tenth of all."""
    loops = loops_of(setup, members)
    if not loops:
        return 0.0
    if len(loops) > 1 or not loops[0].programs.inputs:
        raise ValueError(
            "--search pbt changes float knobs while it trains, so its members must share one program; "
            f"these are of {len(loops)}: sweep float knobs alone, such as the rate, and the seed"
        )
    [loop] = loops
    steps = loop.first.steps
    every = every or max(1, steps // 10)
    for until in range((loop.reached // every + 1) * every, steps, every):
        states = loop.run(until)
        source, values = _generation(loop, metric, goal, np.random.default_rng([draws, until]))
        changed = [i for i, at in enumerate(source) if i != at]
        if changed:
            setup.console.say(f"step {until:,}: {len(changed)} of {len(source)} take over", "dim")
            loop.take_over(
                jax.tree.map(lambda x, source=source: x[np.asarray(source)], states), until, source, values
            )
    loop.run()
    loop.finish()
    return loop.programs.compile_s


def _generation(
    loop: Lockstep, metric: str, goal: str, random: np.random.Generator
) -> tuple[list[int], list[dict[str, float]]]:
    """(whose state each member has from now on, its values of the knobs)."""
    scores = [
        worth(metrics, lost, metric, goal) for metrics, lost in zip(loop.metrics, loop.diverged, strict=True)
    ]
    order = np.argsort(scores)
    part = max(1, len(scores) // PART)
    source, values = list(range(len(scores))), loop.current_values()
    for loser in order[:part]:
        winner = int(random.choice(order[-part:]))
        if scores[loser] < scores[winner]:
            source[loser] = winner
            values[loser] = {k: x * float(random.choice(FACTORS)) for k, x in values[winner].items()}
    return source, values
