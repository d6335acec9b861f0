"""python -m jaxmodels.sweeps.worker SWEEP N…: trains the loops SWEEP/together/N; what a job of --on is, on whatever computer.

All that it needs to know lies in the sweep's folder, and all that it says goes into together/N/log, of its
first loop.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxmodels.launch.safe_path import python
from jaxmodels.runs import lock
from jaxmodels.runs.files import open_appending


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Waits until no other process trains this loop, on any computer that shares the folder, and keeps others off."""
    with lock.take(folder / ".lock", f"{os.getpid()} {platform.node()}", wait=True):
        yield


def holder(folder: Path) -> tuple[int, str] | None:
    """(process id, host) of the process that trains this loop now."""
    owner = lock.owner(folder / ".lock")
    if owner is None:
        return None
    pid, _, host = owner.partition(" ")
    return int(pid or 0), host


def run(words: list[str], folder: str) -> int:
    """This command, from a worker of Ray: its exit status. folder: the working folder, where there is one of this name."""
    command = [*python("jaxmodels.sweeps.worker"), *words]
    process = subprocess.Popen(command, cwd=folder if os.path.isdir(folder) else None)
    try:
        while process.poll() is None:
            time.sleep(0.2)  # a wait that Ray can cancel
        return process.returncode
    except BaseException:
        process.terminate()
        process.wait()
        raise


def main(words: Sequence[str]) -> int:
    """Gives the exit status; a line "error: …" ends the log where it failed."""
    path, folders = Path(words[0]), [Path(words[0]) / "together" / n for n in sorted(words[1:], key=int)]
    if "SLURM_JOB_ID" not in os.environ:
        with contextlib.suppress(OSError):
            os.setsid()  # Ctrl-C is for the sweep, which tells its jobs
    signal.signal(
        signal.SIGUSR2, lambda *_: os.kill(os.getpid(), signal.SIGTERM)
    )  # Slurm's word before time is over
    with os.fdopen(open_appending(path / "together" / words[1] / "log"), "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        with contextlib.ExitStack() as stack:
            for folder in folders:
                stack.enter_context(held(folder))
            print(f"process {os.getpid()} on {platform.node()}", flush=True)
            return _train(path, folders)
    except Exception as error:
        traceback.print_exc()
        text = (
            str(error)
            if isinstance(error, ValueError | OSError | ImportError)
            else f"{type(error).__name__}: {error}"
        )
        print("error:", " ".join(text.split()), flush=True)
        return 1


def _train(path: Path, folders: Sequence[Path]) -> int:
    from jaxmodels.console import Console
    from jaxmodels.options import Options
    from jaxmodels.parallel.mesh import make_mesh
    from jaxmodels.runs import experiment_file, identity
    from jaxmodels.runs.knobs import read_knobs
    from jaxmodels.sweeps.lockstep import Stopped
    from jaxmodels.sweeps.members import Setup, loop_of, member_of, result_of, train_members

    identity.verify(path)
    file = experiment_file.load(path / "experiment.py")
    options = Options(**read_knobs(path).options)
    names = [name for folder in folders for name in loop_of(folder).members]
    left = [member_of(file, path, name) for name in names if result_of(path / "members" / name) is None]
    try:
        train_members(Setup(file, path, options, make_mesh(""), Console()), left)
    except Stopped as stop:
        print(f"saved at step {stop.step:,}", flush=True)
        return stop.exit_status
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
