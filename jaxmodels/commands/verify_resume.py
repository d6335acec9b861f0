"""jaxmodels verify-resume: shows on the user's own experiment that a killed run resumes exactly.

One run takes its steps without interruption. Another takes the same steps, is killed with SIGKILL several
times at seeded moments, and is started again each time with the same command. Then every array of every
checkpoint is compared, bit for bit.
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
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxmodels.console import Console

if TYPE_CHECKING:
    from jaxmodels.runs.experiment_file import File

KEEP_ALL = 10**6
ATTEMPTS = 6  # to kill a run before its end; each waits half as long as the one before


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """How resuming is tested."""

    through: int = 40
    """The last step of both runs."""
    every: int = 10
    """Steps between the checkpoints that are compared."""
    kills: int = 3
    """Times that the second run is killed with SIGKILL."""
    kill_seed: int = 0
    """Seed of the moments of the kills."""


class Outcome(NamedTuple):
    """Whether both runs agree, and if not, where they first differ."""

    passed: bool
    text: str
    checkpoints: list[int]
    kills: int
    step: int | None = None
    array: str | None = None


def verify_resume(
    experiment: str | Path | File,
    *,
    through: int = VerifyOptions.through,
    every: int = VerifyOptions.every,
    kills: int = VerifyOptions.kills,
    kill_seed: int = VerifyOptions.kill_seed,
    console: Console | None = None,
    **knobs: Any,
) -> Outcome:
    """Runs an experiment's file twice, one of them killed, and compares their checkpoints.

    through, every: the last step that is compared, and the steps between checkpoints; the experiment's own
        schedule does not change.
    kills, kill_seed: how often the second run is killed, and the seed of the moments.
    """
    from jaxmodels.launch.safe_path import python
    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.checkpoint import Checkpoints

    if not 0 < every <= through or kills < 0:
        raise ValueError(
            f"verify-resume: got through={through}, every={every}, kills={kills}; expected 1 <= every <= "
            "through and kills >= 0. Change these options"
        )
    console = console or Console(quiet=True)
    file = experiment_file.load(experiment)
    config = experiment_file.make_config(file, knobs)
    built = file.build(config)
    steps = min(through, built.steps)
    if kills and every >= steps:
        raise ValueError(
            f"verify-resume: got every={every} for {steps} steps; expected a checkpoint before the last "
            "step, to go on from. Lower --every or raise --through"
        )
    with tempfile.TemporaryDirectory(prefix="jaxmodels-verify-") as temporary:
        base = Path(temporary)
        command = [*python("jaxmodels"), "train", str(file.path), *knob_flags(config, file), "--quiet"]
        command += ["--checkpoint-every", str(every), "--keep", str(KEEP_ALL), "--stop-at", str(steps)]
        env = {"JAX_COMPILATION_CACHE_DIR": str(base / "compiled"), **os.environ}
        env.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

        console.say(f"{steps} steps without interruption …")
        _finish(_start(command, base / "whole", 0, env))
        whole = Checkpoints(base / "whole" / "checkpoints")
        k = whole.note(whole.steps()[-1])["steps_per_dispatch"]

        draw, interval = random.Random(kill_seed), _seconds_between(base / "whole" / "checkpoints")
        for attempt in range(ATTEMPTS):
            start = partial(_start, command, base / "killed", k, env)
            longest = interval / 2**attempt
            if _killed(start, base / "killed" / "checkpoints", kills, steps, draw, longest, console):
                break
            shutil.rmtree(base / "killed")
        else:
            raise ValueError(
                f"verify-resume: got {steps} steps that ended before {kills} kills; expected a longer run. "
                f"Raise --through (the experiment has {built.steps:,} steps) or lower --kills"
            )
        _finish(start())
        return _compare(built, base / "whole", base / "killed", kills)


def _killed(
    start: Callable,
    checkpoints: Path,
    kills: int,
    steps: int,
    draw: random.Random,
    longest: float,
    console: Console,
) -> bool:
    """Starts a run and kills it `kills` times; False where it ended before.

    The first kill waits for a complete checkpoint, as a run that starts from the beginning proves nothing;
    the others wait until a checkpoint is being written. Each comes at most `longest` seconds later.
    """
    from jaxmodels.runs.checkpoint import Checkpoints

    for number in range(1, kills + 1):
        survived = _kill_later(start(), checkpoints, draw.uniform(0, longest), complete=number == 1)
        complete = Checkpoints(checkpoints).steps()
        if survived or (number == 1 and complete[-1] == steps):
            return False
        newest = complete[-1] if complete else "none"
        console.say(f"killed ({number} of {kills}), newest complete checkpoint: {newest}")
    return True


def knob_flags(config: Any, file: File) -> list[str]:
    """The knobs that differ from their defaults, as the command line takes them."""
    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.knob_types import words

    return words(experiment_file.knobs_of(config), experiment_file.knobs_of(file.config()), file.config)


def _start(command: list[str], folder: Path, k: int, env: Mapping[str, str]) -> subprocess.Popen:
    words = [*command, "--folder", str(folder), "--steps-per-dispatch", str(k)]
    return subprocess.Popen(words, env=dict(env), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finish(process: subprocess.Popen) -> None:
    output, _ = process.communicate()
    if process.returncode:
        raise ValueError(
            f"verify-resume: the experiment itself failed with status {process.returncode}:\n{output.strip()}"
        )


def _kill_later(process: subprocess.Popen, checkpoints: Path, delay: float, *, complete: bool) -> bool:
    """Kills the process `delay` seconds after its next checkpoint began, or is complete.

    True where the process ended before.
    """
    entries = partial(_complete_steps if complete else _entries, checkpoints)
    before = entries()
    while process.poll() is None and not entries() - before:
        time.sleep(0.005)
    time.sleep(delay)
    survived = process.poll() is not None
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return survived


def _seconds_between(checkpoints: Path) -> float:
    """Seconds between two checkpoints of a run."""
    times = sorted(p.stat().st_mtime for p in checkpoints.iterdir() if p.name.isdigit())
    return (times[-1] - times[0]) / max(1, len(times) - 1)


def _complete_steps(folder: Path) -> set[int]:
    from jaxmodels.runs.checkpoint import Checkpoints

    return set(Checkpoints(folder).steps())


def _entries(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()} if folder.is_dir() else set()


def _compare(experiment: Any, whole: Path, killed: Path, kills: int) -> Outcome:
    """Compares every array of every checkpoint of the uninterrupted run."""
    import numpy as np

    from jaxmodels.parallel.mesh import make_mesh
    from jaxmodels.paths import by_path
    from jaxmodels.runs.checkpoint import Checkpoints
    from jaxmodels.state import abstract_state

    like, _ = abstract_state(experiment, make_mesh())
    a, b = Checkpoints(whole / "checkpoints"), Checkpoints(killed / "checkpoints")
    compared = a.steps()
    for n in compared:
        if n not in b.steps():
            return Outcome(False, f"FAIL: the killed run has no checkpoint of step {n}", compared, kills, n)
        first, second = a.restore(like, n), b.restore(like, n)
        assert first and second
        arrays, others = (by_path(_plain(restored[1])) for restored in (first, second))
        for name, x in arrays.items():
            y = others[name]
            if np.asarray(x).tobytes() != np.asarray(y).tobytes():
                difference = np.max(np.abs(np.asarray(x, np.float64) - np.asarray(y, np.float64)))
                text = f"FAIL: step {n}, array {name} differs, by up to {difference:.3g}"
                return Outcome(False, text, compared, kills, n, name)
    steps = ", ".join(map(str, compared))
    checkpoints = f"{len(compared)} checkpoints ({steps})"
    text = f"PASS: after {kills} kills all arrays of {checkpoints} are equal, bit for bit"
    return Outcome(True, text, compared, kills)


def _plain(state: Any) -> Any:
    import jax

    return state._replace(key=jax.random.key_data(state.key))
