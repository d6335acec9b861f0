"""python -m jaxmodels.sweeps.worker SWEEP N…: a job of --on, which trains the loops SWEEP/together/N.

It reads all that it needs from the sweep's folder, and writes its output into together/N/log of its first
loop.
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
    """Locks this loop, on all computers that share the folder; waits while another process trains it."""
    with lock.take(folder / ".lock", f"{os.getpid()} {platform.node()}", wait=True):
        yield


def holder(folder: Path) -> tuple[int, str] | None:
    """(process id, host) of the process that trains this loop now; None for none."""
    owner = lock.owner(folder / ".lock")
    if owner is None:
        return None
    pid, _, host = owner.partition(" ")
    return int(pid or 0), host


def run(words: list[str], folder: str) -> int:
    """Runs this command from a worker of Ray; gives its exit status. folder: the working folder, if there."""
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
    """Gives the exit status; after a failure the log ends with a line "error: …"."""
    path = Path(words[0])
    folders = [path / "together" / number for number in sorted(words[1:], key=int)]
    if "SLURM_JOB_ID" not in os.environ:
        with contextlib.suppress(OSError):
            os.setsid()  # Ctrl-C goes to the sweep, which stops its jobs

    def terminate(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGUSR2, terminate)  # Slurm sends it before the time is over
    with os.fdopen(open_appending(path / "together" / words[1] / "log"), "a") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    try:
        with contextlib.ExitStack() as stack:
            for folder in folders:
                stack.enter_context(held(folder))
            print(f"process {os.getpid()} on {platform.node()}", flush=True)
            return train_loops(path, folders)
    except Exception as error:
        traceback.print_exc()
        expected = isinstance(error, ValueError | OSError | ImportError)
        text = str(error) if expected else f"{type(error).__name__}: {error}"
        print("error:", " ".join(text.split()), flush=True)
        return 1


def train_loops(path: Path, folders: Sequence[Path]) -> int:
    """Trains the members of these loops of the sweep in path; gives the exit status."""
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
