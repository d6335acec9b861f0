"""verify-resume: the proof, on the user's own experiment, that a killed run goes on as if nothing had happened.

One run takes its steps undisturbed. Another takes them too and is killed with SIGKILL again and again, at
seeded moments, and started again with the same command. Then every array of every checkpoint is compared, bit
for bit.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxmodels.console import Console
from jaxmodels.launch.safe_path import python
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.paths import by_path
from jaxmodels.runs import experiment_file
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.knob_types import words
from jaxmodels.state import abstract_state

KEEP_ALL = 10**6
ATTEMPTS = 6  # to kill a run before its end, each in half the time


class Outcome(NamedTuple):
    """Whether both runs agree, and if not, where they first differ."""

    passed: bool
    text: str
    checkpoints: list[int]
    kills: int
    step: int | None = None
    array: str | None = None


def verify_resume(
    experiment: str | Path | experiment_file.File,
    *,
    through: int = 40,
    every: int = 10,
    kills: int = 3,
    kill_seed: int = 0,
    console: Console | None = None,
    **knobs: Any,
) -> Outcome:
    """Runs an experiment's file twice, one of them killed, and compares their checkpoints.

    through, every: the last step compared, and the distance of checkpoints; the experiment's own schedule is
        not changed.
    kills, kill_seed: how often the second run is killed, and at which moments.
    """
    if not 0 < every <= through or kills < 0:
        raise ValueError(
            f"verify-resume: came through={through}, every={every}, kills={kills}; wanted 1 <= every <= through, kills >= 0"
        )
    console = console or Console(quiet=True)
    file = experiment_file.load(experiment)
    config = experiment_file.make_config(file, knobs)
    built = file.build(config)
    steps = min(through, built.steps)
    if kills and every >= steps:
        raise ValueError(
            f"verify-resume: came every={every} for {steps} steps; wanted a checkpoint before the last step, to go on from: "
            "lower --every or raise --through"
        )
    with tempfile.TemporaryDirectory(prefix="jaxmodels-verify-") as temporary:
        base = Path(temporary)
        command = [*python("jaxmodels"), "train", str(file.path), *_flags(config, file), "--quiet"]
        command += ["--checkpoint-every", str(every), "--keep", str(KEEP_ALL), "--stop-at", str(steps)]
        env = {"JAX_COMPILATION_CACHE_DIR": str(base / "compiled"), **os.environ}
        env.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

        console.say(f"{steps} steps without interruption …")
        _finish(_start(command, base / "whole", 0, env))
        whole = Checkpoints(base / "whole" / "checkpoints")
        k = whole.note(whole.steps()[-1])["steps_per_dispatch"]

        draw, apart = random.Random(kill_seed), _between(base / "whole" / "checkpoints")
        for narrower in range(ATTEMPTS):
            start = partial(_start, command, base / "killed", k, env)
            if _killed(
                start, base / "killed" / "checkpoints", kills, steps, draw, apart / 2**narrower, console
            ):
                break
            shutil.rmtree(base / "killed")
        else:
            raise ValueError(
                f"verify-resume: {steps} steps were over before {kills} kills; wanted a run that lasts: raise --through "
                f"(the experiment has {built.steps:,} steps) or lower --kills"
            )
        _finish(start())
        return _compare(built, base / "whole", base / "killed", kills)


def _killed(
    start: Callable,
    checkpoints: Path,
    kills: int,
    steps: int,
    draw: random.Random,
    apart: float,
    console: Console,
) -> bool:
    """Starts a run and kills it so many times; False where it came to its end before.

    The first time there is a checkpoint to go on from: a run that begins anew proves nothing. Later a
    checkpoint has begun.
    """
    for number in range(1, kills + 1):
        survived = _kill_later(start(), checkpoints, draw.uniform(0, apart), complete=number == 1)
        at = Checkpoints(checkpoints).steps()
        if survived or (number == 1 and at[-1] == steps):
            return False
        console.say(f"killed ({number} of {kills}), newest complete checkpoint: {at[-1] if at else 'none'}")
    return True


def _flags(config: Any, file: experiment_file.File) -> list[str]:
    """The knobs that differ from their defaults, as the command line takes them."""
    return words(experiment_file.knobs_of(config), experiment_file.knobs_of(file.config()), file.config)


def _start(command: list[str], folder: Path, k: int, env: Mapping[str, str]) -> subprocess.Popen:
    words = [*command, "--folder", str(folder), "--steps-per-dispatch", str(k)]
    return subprocess.Popen(words, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen) -> None:
    said, _ = process.communicate()
    if process.returncode:
        raise ValueError(
            f"verify-resume: the experiment itself failed with status {process.returncode}:\n{said.strip()}"
        )


def _kill_later(process: subprocess.Popen, checkpoints: Path, delay: float, *, complete: bool) -> bool:
    """Kills the process some time after its next checkpoint was begun, or complete; True where it ended before."""
    entries = (lambda: set(Checkpoints(checkpoints).steps())) if complete else partial(_entries, checkpoints)
    before = entries()
    while process.poll() is None and not entries() - before:
        time.sleep(0.005)
    time.sleep(delay)
    survived = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return survived


def _between(checkpoints: Path) -> float:
    """Seconds between two checkpoints of a run."""
    times = sorted(p.stat().st_mtime for p in checkpoints.iterdir() if p.name.isdigit())
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def _entries(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


def _compare(experiment: Any, whole: Path, killed: Path, kills: int) -> Outcome:
    """Every array of every checkpoint that the undisturbed run has."""
    like, _ = abstract_state(experiment, make_mesh())
    a, b = Checkpoints(whole / "checkpoints"), Checkpoints(killed / "checkpoints")
    common = a.steps()
    for n in common:
        if n not in b.steps():
            return Outcome(False, f"FAIL: the killed run has no checkpoint of step {n}", common, kills, n)
        first, second = a.restore(like, n), b.restore(like, n)
        assert first and second
        arrays, others = (by_path(_plain(restored[1])) for restored in (first, second))
        for name, x in arrays.items():
            y = others[name]
            if np.asarray(x).tobytes() != np.asarray(y).tobytes():
                apart = np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)))
                text = f"FAIL: step {n}, array {name} differs, by up to {apart:.3g}"
                return Outcome(False, text, common, kills, n, name)
    steps_said = ", ".join(map(str, common))
    text = f"PASS: after {kills} kills all arrays of {len(common)} checkpoints ({steps_said}) are equal, bit for bit"
    return Outcome(True, text, common, kills)


def _plain(state: Any) -> Any:
    return state._replace(key=jax.random.key_data(state.key))
