"""Schedules at points counted by hand."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from jaxmodels import optim

pytestmark = pytest.mark.fast

POINTS = {
    "constant": (optim.constant(2.0), {0: 2, 7: 2}),
    "cosine": (
        optim.warmup_cosine(2.0, warmup=4, steps=12),
        {0: 0.5, 1: 1, 3: 2, 4: 2, 6: 1 + 0.5**0.5, 8: 1, 12: 0},
    ),
    "cosine to a tenth": (
        optim.warmup_cosine(2.0, warmup=4, steps=12, end=0.1),
        {4: 2, 8: 1.1, 12: 0.2, 99: 0.2},
    ),
    "cosine at once": (optim.warmup_cosine(2.0, warmup=0, steps=4), {0: 2, 2: 1, 4: 0}),
    "linear": (
        optim.warmup_linear(2.0, warmup=4, steps=12),
        {0: 0.5, 3: 2, 4: 2, 8: 1, 10: 0.5, 12: 0, 99: 0},
    ),
    "linear to a half": (optim.warmup_linear(2.0, warmup=4, steps=12, end=0.5), {4: 2, 8: 1.5, 12: 1}),
    "only warm-up": (optim.warmup_linear(2.0, warmup=4, steps=4), {0: 0.5, 3: 2}),
    "stable": (
        optim.warmup_stable_decay(2.0, warmup=2, steps=10, decay=4),
        {0: 1, 1: 2, 2: 2, 6: 2, 8: 1, 9: 0.5, 10: 0},
    ),
    "stable, no decay": (optim.warmup_stable_decay(2.0, warmup=2, steps=10, decay=0), {0: 1, 1: 2, 9: 2}),
    "only decay": (optim.warmup_stable_decay(2.0, warmup=0, steps=8, decay=8, end=0.5), {0: 2, 4: 1.5, 8: 1}),
    "rsqrt": (optim.warmup_rsqrt(2.0, warmup=4), {0: 0.5, 1: 1, 3: 2, 15: 1, 63: 0.5}),
    "steps": (optim.steps_at(2.0, boundaries=(3, 5)), {0: 2, 2: 2, 3: 0.2, 4: 0.2, 5: 0.02, 99: 0.02}),
    "no steps": (optim.steps_at(2.0, boundaries=()), {0: 2, 9: 2}),
}


@pytest.mark.parametrize("name", POINTS)
def test_schedules_pass_through_the_points_counted_by_hand(name):
    schedule, points = POINTS[name]
    np.testing.assert_allclose(
        [schedule(count) for count in points], list(points.values()), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    "schedule", [optim.warmup_cosine, optim.warmup_linear, partial(optim.warmup_stable_decay, decay=0)]
)
@pytest.mark.parametrize("warmup", [-1, 11])
def test_a_warmup_longer_than_the_run_is_refused(schedule, warmup):
    with pytest.raises(ValueError, match=f"got warmup={warmup} with steps=10; expected 0 to 10. Lower"):
        schedule(1.0, warmup=warmup, steps=10)


@pytest.mark.parametrize("decay", [-1, 8])
def test_a_decay_that_reaches_into_the_warmup_is_refused(decay):
    with pytest.raises(ValueError, match=f"got decay={decay} with steps=10 and warmup=3; expected 0 to 7"):
        optim.warmup_stable_decay(1.0, warmup=3, steps=10, decay=decay)


def test_a_root_without_warmup_is_refused():
    with pytest.raises(ValueError, match="got warmup=0; expected 1 or more"):
        optim.warmup_rsqrt(1.0, warmup=0)
