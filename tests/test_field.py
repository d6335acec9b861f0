"""Faults of the field that no other file makes: spikes, odd records, lost logs, clocks, caches, versions."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from files import bare_jax
from jax.experimental.compilation_cache import compilation_cache
from listening import Listening
from states import leaves, same_bits

from jaxmodels import Options, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.experiment import Experiment
from jaxmodels.optim import skip_spikes
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.state import abstract_state
from jaxmodels.training import runner
from jaxmodels.training.check import check

fast = pytest.mark.fast

STEPS = 12


def bare() -> Experiment:
    return bare_jax.build(bare_jax.Config(steps=STEPS, save_every=2, log_every=1))


def run(
    experiment: Experiment, folder: Path, *, on_step: Any = None, **options: Any
) -> tuple[runner.Result, list[str]]:
    console = Listening()
    opened = Folder(folder, keep=2, warn=console.warn)
    try:
        opened.open(RunDefinition("", {}, {}))
        with_mesh = Options(mesh="data=1", **options)
        return runner.run(
            experiment, with_mesh, folder=opened, console=console, on_step=on_step
        ), console.said
    finally:
        opened.close()


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line["train/loss"] for line in lines if "train/loss" in line}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> runner.Result:
    """The run without a fault."""
    return run(bare(), tmp_path_factory.mktemp("whole"))[0]


class Odd(ArrayPipeline):
    """One batch is not as the others."""

    def __init__(self, kind: str, at: int):
        super().__init__(bare_jax.arrays(52), batch=8, seed=0)
        self.kind, self.at = kind, at

    def resident(self) -> None:
        return None

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        batch = super().rows(step, start, stop)
        if step != self.at or self.kind == "none":
            return batch
        if self.kind == "spike":
            return {**batch, "y": 100 * batch["y"]}
        if self.kind == "missing":
            return {name: x for name, x in batch.items() if name != "y"}
        return {**batch, "x": batch["x"][:, :-1]}


def odd(kind: str, at: int = 6) -> Experiment:
    return replace(bare(), train=Odd(kind, at))


@pytest.mark.slow
@fast
def test_a_spike_of_the_loss_is_in_the_log_and_resume_over_it_is_exact(tmp_path):
    wanted, _ = run(odd("spike"), tmp_path / "whole")
    for stop in (6, 7):
        with pytest.raises(runner.Interrupted):
            run(odd("spike"), tmp_path / "cut", stop_at=stop)
    again, said = run(odd("spike"), tmp_path / "cut")
    same_bits(again.state, wanted.state)
    of = losses(tmp_path / "cut")
    assert of == losses(tmp_path / "whole") and said == []
    assert of[7] > 100 * of[6]  # the loss of the batch of step 6 is logged when 7 steps are done


def guarded(kind: str = "spike") -> Experiment:
    return replace(odd(kind), optimizer=skip_spikes(optim.sgd(0.05, momentum=0.9), warmup=3))


@pytest.mark.slow
@fast
def test_a_spike_that_is_skipped_leaves_the_parameters_is_told_once_and_resume_over_it_is_exact(tmp_path):
    wanted, said = run(guarded(), tmp_path / "whole")
    assert said == ["up to step 7: gradient norm far above the usual, batch skipped (1 so far)"]
    left = []
    for stop in (6, 7):
        with pytest.raises(runner.Interrupted):
            run(guarded(), tmp_path / "cut", stop_at=stop)
        like, _ = abstract_state(guarded(), check(guarded(), Options(mesh="data=1")))
        left.append(Checkpoints(tmp_path / "cut" / "checkpoints").restore(like, stop)[1])
    for part in (lambda x: x.params, lambda x: x.opt_state.inner):
        jax.tree.map(np.testing.assert_array_equal, part(left[1]), part(left[0]))
    again, said = run(guarded(), tmp_path / "cut")
    same_bits(again.state, wanted.state)
    assert said == []
    log = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    counts = [json.loads(line).get("train/skipped_spikes") for line in log]
    assert [n for n in counts if n is not None] == [0] * 6 + [1] * (STEPS - 6)


@pytest.mark.slow
@fast
@pytest.mark.parametrize("how", ["jit", "pmap", "accumulate"])
def test_devices_and_micro_batches_skip_the_same_spike(how):
    options = {"accumulate": 2} if how == "accumulate" else {"mesh": "data=2", "compile": how}
    one, other = (
        runner.run(guarded(), Options(**{"mesh": "data=1", **options}), console=Listening()).state
        for options in ({}, options)
    )
    assert int(one.opt_state.skipped_spikes) == int(other.opt_state.skipped_spikes) == 1

    def close(a, b):
        return np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)

    jax.tree.map(close, (other.params, other.opt_state), (one.params, one.opt_state))


@pytest.mark.slow
@fast
@pytest.mark.parametrize("kind", ["shape", "missing"])
def test_a_batch_that_is_not_as_the_others_ends_the_run_and_the_checkpoints_before_it_are_sound(
    tmp_path, kind
):
    with pytest.raises((ValueError, KeyError, TypeError)):
        run(odd(kind), tmp_path)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps()[-1] == 6
    checkpoints.verify(6)
    assert int(run(odd("none"), tmp_path)[0].state.step) == STEPS


@pytest.mark.slow
@fast
@pytest.mark.parametrize("how", ["deleted", "rotated", "a folder"])
def test_a_log_that_is_lost_on_the_way_changes_nothing(tmp_path, whole, how):
    def lose(n: int) -> None:
        if n == 5:
            path = tmp_path / "metrics.jsonl"
            path.rename(tmp_path / "metrics.jsonl.1")
            if how == "deleted":
                (tmp_path / "metrics.jsonl.1").unlink()
            if how == "a folder":
                path.mkdir()

    got, said = run(bare(), tmp_path, on_step=lose)
    same_bits(got.state, whole.state)
    assert bool(said) == (how == "a folder")


@pytest.mark.slow
@fast
def test_a_clock_that_jumps_changes_no_bit(tmp_path, whole, monkeypatch):
    """Orbax gives up a save when the clock jumps forward meanwhile: a warning. The next one counts."""
    now, days = time.time, [0]
    monkeypatch.setattr(time, "time", lambda: now() + 86_400 * days[0])
    got, said = run(
        bare(), tmp_path, on_step=lambda n: days.__setitem__(0, {5: 400, 9: -400}.get(n, days[0]))
    )
    same_bits(got.state, whole.state)
    assert all(
        "could not be written" in text and "timed out" in text and "Training goes on" in text for text in said
    )
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == STEPS


@pytest.mark.slow
@fast
def test_a_tracker_that_always_fails_changes_nothing(tmp_path, whole):
    def gone(step, values):
        raise ConnectionError("the server is gone")

    result = runner.run(bare(), Options(mesh="data=1"), console=Listening(), trackers=(gone,))
    same_bits(result.state, whole.state)


@pytest.mark.slow
@fast
def test_a_folder_of_checkpoints_that_vanishes_is_made_anew(tmp_path, whole):
    checkpoints = Checkpoints(tmp_path / "checkpoints")

    def remove(n: int) -> None:
        if n == 5:
            while 4 not in checkpoints.steps():
                time.sleep(0.01)
            shutil.rmtree(checkpoints.folder)

    got, _ = run(bare(), tmp_path, on_step=remove)
    same_bits(got.state, whole.state)
    assert checkpoints.steps()[-1] == STEPS
    same_bits(run(bare(), tmp_path)[0].state, whole.state)


def test_a_damaged_compilation_cache_compiles_again_to_the_same_bits(tmp_path, whole):
    """Its entries are truncated, changed by a bit, and emptied, in turn."""
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    cache = tmp_path / "cache"
    try:
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for start in ("first", "again"):
            compilation_cache.reset_cache()
            jax.clear_caches()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # jax says that it could not read an entry
                got, _ = run(bare(), tmp_path / start)
            same_bits(got.state, whole.state)
            entries = [path for path in cache.rglob("*-cache") if path.is_file()]
            assert entries
            for i, path in enumerate(sorted(entries)):
                content = bytearray(path.read_bytes())
                if content:
                    content[len(content) // 2] ^= 4
                path.write_bytes((content[: len(content) // 2], content, b"")[i % 3])
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
        jax.config.update("jax_persistent_cache_min_compile_time_secs", before[1])
        compilation_cache.reset_cache()


def test_another_version_of_jax_goes_on_from_the_checkpoint(tmp_path):
    """JAXMODELS_OTHER_PYTHON: an interpreter with another jax, and this package or a path to it."""
    other = os.environ.get("JAXMODELS_OTHER_PYTHON")
    if not other:
        pytest.skip("needs another jax: set JAXMODELS_OTHER_PYTHON to a Python that has it")
    env = dict(os.environ)
    env.pop("XLA_FLAGS", None)  # each version has its own
    env["PYTHONPATH"] = os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))
    words = ["-m", "jaxmodels", "train", bare_jax.__file__]
    words += ["--mesh", "data=1", "--save-every", "2", "--quiet"]
    for folder, pythons in (("mixed", (sys.executable, other)), ("whole", (sys.executable, sys.executable))):
        for stop, python in zip(("6", "0"), pythons, strict=True):
            command = [python, *words, "--folder", str(tmp_path / folder), "--stop-at", stop]
            subprocess.run(command, env=env, check=True, timeout=120)
    experiment = bare_jax.build(bare_jax.Config())
    like, _ = abstract_state(experiment, check(experiment, Options(mesh="data=1")))
    states = [Checkpoints(tmp_path / folder / "checkpoints").restore(like) for folder in ("mixed", "whole")]
    assert [n for n, _, _ in states] == [10, 10]
    for (name, x), y in zip(leaves(states[0][1]).items(), leaves(states[1][1]).values(), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6, err_msg=name)
