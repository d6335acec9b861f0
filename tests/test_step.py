"""The state that init gives is one that a step may donate."""

from __future__ import annotations

from functools import partial

import jax
import pytest
from instances import first
from tiny import TINY

from jaxmodels import optim
from jaxmodels.step import init, make_step

OPTIMIZERS = {
    "sgd": partial(optim.sgd, 0.01),
    "adam": partial(optim.adam, 1e-3),
    "ema": lambda: optim.with_ema(optim.adam(1e-3)),
    "schedule-free": lambda: optim.schedule_free_adamw(1e-3),
    "partial": lambda: optim.with_ema(optim.skip_spikes(optim.adam(1e-3))),
}


# The zero of steps and faults is one array in every model's state; the other models look for a second one.
ALL = [pytest.param(t, id=t.name, marks=[] if t.name == "dino" else pytest.mark.thorough) for t in TINY]


@pytest.mark.parametrize("tiny", ALL)
def test_a_state_made_eagerly_can_be_donated(tiny):
    state = init(tiny.task, optim.sgd(0.01), 0, tiny.batch)
    step = jax.jit(make_step(tiny.task, optim.sgd(0.01)), donate_argnums=0)
    assert int(step(state, tiny.batch)[0].step) == 1


PAIRS = [(name, kind) for name in ("mlp-dropout", "dino", "cnn-norm-dropout") for kind in OPTIMIZERS]


@pytest.mark.parametrize(("name", "kind"), first(len(OPTIMIZERS), PAIRS))
def test_a_state_of_every_kind_of_optimizer_can_be_donated(name, kind):
    (tiny,) = (tiny for tiny in TINY if tiny.name == name)
    state = init(tiny.task, OPTIMIZERS[kind](), 0, tiny.batch)
    step = jax.jit(make_step(tiny.task, OPTIMIZERS[kind]()), donate_argnums=0)
    assert int(step(state, tiny.batch)[0].step) == 1
