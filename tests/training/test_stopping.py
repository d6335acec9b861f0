"""When a run ends: early, by its evaluations, or later than it was to, by more steps.

And when it evaluates before.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import optax
import pytest
from files import bare_jax
from states import same_bits

from jaxmodels import Experiment, Options, patience, sweep, train
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.state import abstract_state
from jaxmodels.training import runner
from jaxmodels.training.check import check
from jaxmodels.training.schedule import evaluates

fast = pytest.mark.fast
ONE = "data=1"


def log(*values: float) -> list[dict[str, float]]:
    return [{"step": 10 * i, "test/accuracy": value} for i, value in enumerate(values, 1)]


# Counted by hand: with a patience of 2, the position of the evaluation after which it stops, or None.
CASES = {
    "rising": ((0.1, 0.2, 0.3, 0.4), 0.0, None),
    "falling": ((0.4, 0.3, 0.2), 0.0, 3),
    "a tie is no improvement": ((0.4, 0.4, 0.4), 0.0, 3),
    "an improvement begins the count again": ((0.4, 0.3, 0.5, 0.4, 0.4), 0.0, 5),
    "a small improvement is none": ((0.4, 0.405, 0.409), 0.01, 3),
    "small ones add up": ((0.4, 0.405, 0.411, 0.415, 0.42), 0.01, 5),
    "not a number is no improvement": ((0.4, math.nan, math.nan), 0.0, 3),
    "the first is not a number": ((math.nan, 0.1, 0.05, 0.05), 0.0, 4),
}


@fast
@pytest.mark.parametrize(("values", "min_delta", "at"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("better", [max, min])
def test_patience_stops_where_a_hand_count_does(values, min_delta, at, better):
    stop = patience("test/accuracy", better, evaluations=2, min_delta=min_delta)
    signed = values if better is max else tuple(-x for x in values)
    said = [bool(stop(log(*signed[:n]))) for n in range(1, len(values) + 1)]
    assert said == [n == at for n in range(1, len(values) + 1)]


@fast
def test_patience_says_the_best_value_and_its_step():
    said = patience("test/accuracy", max, evaluations=2)(log(0.1, 0.75, 0.5, 0.7))
    assert said == "test/accuracy has not improved on 0.75 of step 20 in 2 evaluations"


@fast
def test_patience_names_what_it_cannot_use():
    with pytest.raises(
        ValueError, match=r"got the metric 'test/f1'; expected one of test/accuracy. Name one"
    ):
        patience("test/f1", max, evaluations=1)(log(0.1))
    with pytest.raises(ValueError, match=r"got better=max, evaluations=0, min_delta=0.0; expected"):
        patience("test/accuracy", max, evaluations=0)


def bare(**knobs: Any) -> Experiment:
    """Trains with a rate of 0 from step 4 on, so that the test loss improves at steps 2 and 4 and never
    after.
    """
    experiment = bare_jax.build(bare_jax.Config(eval_every=2, save_every=5, steps=30, **knobs))
    stop = patience("test/loss", min, evaluations=3)
    rate = optax.piecewise_constant_schedule(0.05, {4: 0.0})
    return dataclasses.replace(experiment, optimizer=optax.sgd(rate), stop_when=stop, best=("test/loss", min))


def run(experiment: Experiment, folder: Path | None = None, **options: Any) -> runner.Result:
    options = {"mesh": ONE, **options}
    if folder is None:
        return runner.run(experiment, Options(**options))
    opened = Folder(folder, keep=options.get("keep", 100))
    try:
        opened.open(RunDefinition("", {}, {}))
        return runner.run(experiment, Options(**options), folder=opened)
    finally:
        opened.close()


@pytest.mark.slow
@fast
def test_a_run_stops_after_its_patience_and_says_why_and_where(tmp_path):
    result = run(bare(), tmp_path, keep=1)
    assert int(result.state.step) == 10 == result.summary["steps"]
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["exit"] == "complete" and written["stopped"]["step"] == 10
    assert (
        "has not improved" in written["stopped"]["why"]
        and "of step 4 in 3 evaluations" in written["stopped"]["why"]
    )
    kept = Checkpoints(tmp_path / "checkpoints")
    assert kept.best() == 4 and kept.steps() == [4, 10]


@pytest.mark.slow
@fast
def test_it_takes_the_steps_of_a_run_that_does_not_stop(tmp_path):
    never = dataclasses.replace(bare(), stop_when=None)
    with pytest.raises(runner.Interrupted):
        run(never, tmp_path, stop_at=10)
    like = abstract_state(never, check(never, Options(mesh=ONE)))[0]
    _, state, _ = Checkpoints(tmp_path / "checkpoints").restore(like, 10)
    same_bits(run(bare()).state, state)


@pytest.mark.parametrize("killed_at", [3, 9, 10])
def test_killed_before_at_and_after_the_stopping_step_it_ends_the_same(tmp_path, killed_at):
    """With stop_at the run saves and ends.

    What a kill leaves besides is what came after, which is removed.
    """
    whole = run(bare())
    with pytest.raises(runner.Interrupted):
        run(bare(), tmp_path, stop_at=killed_at)
    (tmp_path / "result.json").unlink()
    for _ in range(2):
        again = run(bare(), tmp_path)
        same_bits(again.state, whole.state)
        assert again.metrics == whole.metrics and again.summary["stopped"] == whole.summary["stopped"]
    assert again.summary["train_s"] == 0  # the same command again finds it complete
    assert [x["step"] for x in again.history if "test/loss" in x] == [2, 4, 6, 8, 10]


def test_killed_between_the_evaluation_and_its_checkpoint_it_ends_the_same(tmp_path):
    whole = run(bare(), tmp_path)
    shutil.rmtree(tmp_path / "checkpoints" / "10")
    same_bits(run(bare(), tmp_path).state, whole.state)


@fast
def test_an_experiment_that_is_never_evaluated_on_the_way_cannot_stop_early():
    with pytest.raises(
        ValueError, match=r"stop_when: got an experiment without eval_every; expected evaluations"
    ):
        run(dataclasses.replace(bare(), eval_every=None))
    with pytest.raises(ValueError, match=r"stop_when: got an experiment without evals; expected"):
        run(dataclasses.replace(bare(), evals={}))


@fast
def test_a_sweep_refuses_early_stopping_by_name(tmp_path):
    file = tmp_path / "stops.py"
    source = Path(bare_jax.__file__).read_text()
    file.write_text(
        source.replace("        log_every=", "        stop_when=lambda log: '',\n        log_every=")
    )
    with pytest.raises(
        ValueError, match=r"sweep: got an experiment with stop_when; expected one without.*--search halving"
    ):
        sweep(file, folder=tmp_path / "sweep", lr=[0.1, 0.2], eval_every=2)


# More steps


@pytest.mark.slow
@fast
def test_a_complete_run_goes_on_with_more_steps_and_writes_it_down(tmp_path, capsys):
    file = Path(bare_jax.__file__)
    short = train(file, folder=str(tmp_path), mesh=ONE, steps=6)
    longer = train(file, folder=str(tmp_path), mesh=ONE, steps=10)
    assert "from step 6 on its schedules are those of the longer run" in " ".join(
        capsys.readouterr().err.split()
    )
    assert [line["step"] for line in longer.history if "train/loss" in line] == [*range(1, 11)]
    record = [{"step": 6, "knob": "steps", "from": 6, "to": 10}]
    knobs = json.loads((tmp_path / "knobs.json").read_text())
    assert knobs["knobs"]["steps"] == 10 and knobs["longer"] == record
    assert json.loads((tmp_path / "result.json").read_text())["longer"] == record
    again = train(file, folder=str(tmp_path), mesh=ONE, steps=10)  # the same command finds it complete
    same_bits(again.state, longer.state)
    assert "longer" not in capsys.readouterr().err and short.metrics != longer.metrics
    with pytest.raises(ValueError, match="steps: 10 there, 6 here"):
        train(file, folder=str(tmp_path), mesh=ONE, steps=6)


@pytest.mark.slow
@fast
def test_where_no_schedule_depends_on_the_steps_a_longer_run_is_one_run(tmp_path):
    file = tmp_path / "constant.py"
    source = Path(bare_jax.__file__).read_text()
    file.write_text(
        source.replace("optim.warmup_cosine(config.lr, warmup=0, steps=config.steps)", "config.lr")
    )
    train(file, folder=str(tmp_path / "run"), mesh=ONE, steps=6)
    with pytest.raises(runner.Interrupted):  # a kill in what was added changes nothing either
        train(file, folder=str(tmp_path / "run"), mesh=ONE, steps=12, stop_at=8)
    longer = train(file, folder=str(tmp_path / "run"), mesh=ONE, steps=12)
    same_bits(longer.state, train(file, folder=str(tmp_path / "whole"), mesh=ONE, steps=12).state)


@pytest.mark.slow
@fast
@pytest.mark.parametrize(
    "also", [{"lr": 0.2}, {"steps": 4}, {"precision": "bfloat16"}], ids=["lr", "steps", "precision"]
)
def test_anything_but_more_steps_is_another_experiment(tmp_path, also):
    file = Path(bare_jax.__file__)
    train(file, folder=str(tmp_path), mesh=ONE, steps=6)
    before = (tmp_path / "knobs.json").read_bytes()
    with pytest.raises(ValueError, match="holds another experiment"):
        train(file, folder=str(tmp_path), mesh=ONE, **{"steps": 10, **also})
    assert (tmp_path / "knobs.json").read_bytes() == before


@pytest.mark.slow
@fast
def test_a_run_that_is_not_complete_gets_no_other_number_of_steps(tmp_path):
    file = Path(bare_jax.__file__)
    with pytest.raises(runner.Interrupted):
        train(file, folder=str(tmp_path), mesh=ONE, steps=6, stop_at=3)
    with pytest.raises(
        ValueError,
        match=r"steps: 6 there, 10 here\n\(A complete run goes on with more steps; none does with fewer",
    ):
        train(file, folder=str(tmp_path), mesh=ONE, steps=10)


# Evaluations


@fast
@pytest.mark.parametrize(
    ("every", "steps", "at"),
    [
        (4, 10, [4, 8, 10]),
        (512, 2562, [512, 1024, 1536, 2048, 2562]),  # not 2560 too
        (1000, 2100, [1000, 2000, 2100]),  # a tenth is enough
        (1000, 2099, [1000, 2099]),
        (1, 3, [1, 2, 3]),
        (5, 10, [5, 10]),
        (20, 10, [10]),
        (None, 10, [10]),
    ],
)
def test_no_evaluation_comes_just_before_the_last(every, steps, at):
    assert [n for n in range(1, steps + 1) if evaluates(n, every, steps)] == at


def test_a_run_evaluates_as_that_says():
    experiment = bare_jax.build(bare_jax.Config(eval_every=11, steps=23))
    lines = runner.run(experiment, Options(mesh=ONE)).history
    assert [line["step"] for line in lines if "test/loss" in line] == [11, 23]
