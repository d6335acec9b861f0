"""A run of an Experiment object goes on with the same one alone, though there is no file to compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
import optax
import pytest

from jaxmodels import Experiment, optim, train
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.runs import identity, step_digest
from jaxmodels.task import Mean, Task

STEPS = 2


class Net(nn.Module):
    """Written out, so that a test may change any part of it."""

    width: int = 4
    activation: object = nn.tanh

    @nn.compact
    def __call__(self, x_BF):
        return nn.Dense(1)(self.activation(nn.Dense(self.width)(x_BF)))


def task(net: nn.Module, scale=1.0) -> Task:
    def init(key, batch):
        return net.init(key, batch["x"])["params"], {}

    def loss(params, extra, batch, keys_B):
        error_B = ((net.apply({"params": params}, batch["x"])[:, 0] - scale * batch["y"]) ** 2).astype(
            np.float32
        )
        return Mean.of(error_B, batch["weight"]), extra, {}

    return Task(init, loss, lambda *_: {})


def experiment(
    optimizer=None, steps: int = STEPS, net: nn.Module | None = None, order=None, **more
) -> Experiment:
    rng = np.random.default_rng(0)
    arrays = {"x": rng.normal(size=(8, 3)).astype(np.float32), "y": np.ones(8, np.float32)}
    data = ArrayPipeline(arrays, batch=8, seed=order)
    made = task(net or Net(), more.pop("scale", 1.0))
    return Experiment(task=made, optimizer=optimizer or optim.sgd(0.1), train=data, steps=steps, **more)


def step_of(said: dict[str, str]) -> str:
    [name] = [name for name in said if name.startswith(step_digest.STEP)]
    return said[name]


def go(made: Experiment, **options):
    return train(made, folder="run", mesh="data=1", **options)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    go(experiment())
    return Path("run")


def test_another_order_of_the_examples_is_refused(run):
    with pytest.raises(ValueError, match=r"examples of the first batch: .* there, .* here"):
        go(experiment(order=1))


def test_another_step_on_the_same_arrays_is_refused_unless_forced(run):
    assert go(experiment()).summary["exit"] == "complete"
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(ValueError) as error:
        go(experiment(optim.sgd(0.2)))
    said = str(error.value)
    assert said.startswith(
        "run holds another experiment:\n  the step: another function, rate or constant, on the same "
        "arrays\nChoose"
    )
    assert "--force" in said
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file() and p.name != ".lock"} == before
    assert go(experiment(optim.sgd(0.2)), force=True).summary["exit"] == "complete"
    assert (
        go(experiment(optim.sgd(0.2))).summary["exit"] == "complete"
    )  # what was forced upon it is now the run's


def test_other_arrays_and_settings_are_named(run):
    with pytest.raises(
        ValueError, match=r"params/Dense_1/kernel: float32\[3, 4\] there, float32\[3, 6\] here"
    ):
        go(experiment(net=Net(width=6)))
    with pytest.raises(ValueError, match=r"opt_state/.*: \(absent\) there, float32\[4\] here"):
        go(experiment(optim.adam(0.1)))
    with pytest.raises(ValueError, match="log_every: 50 there, 7 here"):
        go(experiment(log_every=7))
    with pytest.raises(ValueError, match="precision: float32 there, bfloat16 here"):
        go(experiment(), precision="bfloat16")


def test_a_complete_run_is_made_longer_with_the_schedule_of_its_length(run):
    with pytest.raises(ValueError, match="another experiment"):
        go(experiment(optim.adam(0.1), steps=2 * STEPS))

    def run_of(steps):
        return experiment(optim.sgd(optim.warmup_cosine(0.1, warmup=1, steps=steps)), steps)

    go(run_of(STEPS), fresh=True)
    assert go(run_of(2 * STEPS)).summary["steps"] == 2 * STEPS


def test_a_run_of_before_goes_on_and_then_knows_its_experiment(run):
    known = json.loads((run / "knobs.json").read_text())
    del known["traced"]
    contents = {"knobs.json": json.dumps(known).encode(), "experiment.py": b""}
    identity.write(run, identity.read(run), contents)
    go(experiment())
    with pytest.raises(ValueError, match="the step: another"):
        go(experiment(optim.sgd(0.2)))


@pytest.mark.parametrize(
    "other",
    [
        lambda: experiment(net=Net(activation=nn.sigmoid)),
        lambda: experiment(optim.sgd(0.1000001)),
        lambda: experiment(scale=np.float32(2)),
        lambda: experiment(scale=np.arange(2, dtype=np.float32)),
        lambda: experiment(optax.chain(optax.clip(1.0), optim.sgd(0.1))),
    ],
    ids=["activation", "rate", "constant", "array", "clipping"],
)
def test_each_operation_and_constant_counts(other):
    assert step_of(step_digest.described(other(), "float32")) != step_of(
        step_digest.described(experiment(), "float32")
    )


def test_no_name_address_or_process_does():
    def renamed(x):
        return jax.nn.tanh(x)

    here = step_of(step_digest.described(experiment(net=Net(activation=renamed)), "float32"))
    code = (
        "from runs import test_step_digest as t; "
        "print(t.step_of(t.step_digest.described(t.experiment(), 'float32')))"
    )
    env = {
        **os.environ,
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "PYTHONHASHSEED": "7",
        "JAX_PLATFORMS": "cpu",
    }
    there = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here
