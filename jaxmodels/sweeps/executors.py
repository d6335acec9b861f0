"""Members trained by jobs: processes on this computer, Slurm's through submitit, or Ray's tasks, all by way of the folder.

A job is nothing but a command (jaxmodels.sweeps.worker) that trains some of the sweep's loops. So that no
member is trained twice, loops are assigned here, where the sweep's folder is held, and each is locked by the
job that trains it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jaxmodels.launch.safe_path import VARIABLE, python, starting
from jaxmodels.runs.files import BadFile, read_lines
from jaxmodels.sweeps import worker
from jaxmodels.sweeps.lockstep import Stopped
from jaxmodels.sweeps.member_files import Member, claim
from jaxmodels.sweeps.members import Setup, begun_of, grouped, loop_of, new_folder, result_of
from jaxmodels.training.signals import Signals

POLL = 0.2  # seconds
HOURS = 24  # that Slurm is asked for where nothing else is said
YEAR = 365 * 24 * 60  # minutes


@contextlib.contextmanager
def place(on: str, path: Path, resources: str) -> Iterator[_Submitit | _Ray]:
    """local, slurm or ray; resources: what each job asks for, as in partition=gpu,time=60."""
    asked = _read(resources)
    if on == "ray":
        if not _ray_is_there():
            os.environ.setdefault(
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0"
            )  # how Ray is told to listen at 127.0.0.1 alone
        try:
            import ray
        except ImportError as error:
            raise ImportError("--on ray needs ray; pip install 'jaxmodels[ray]'") from error
        with contextlib.ExitStack() as stack:
            if not ray.is_initialized():
                os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that this starts
                stack.enter_context(_begun(ray))
            yield _Ray(ray, asked)
    elif on in ("local", "slurm"):
        os.environ.setdefault(
            "SUBMITIT_LOG_LEVEL", "NOCONFIG"
        )  # else its import sets up all logging anew, on stdout
        try:
            import submitit
        except ImportError as error:
            raise ImportError(f"--on {on} needs submitit; pip install 'jaxmodels[slurm]'") from error
        yield _Submitit(submitit, on, path / "submitit", asked)
    else:
        raise ValueError(f"--on {on}: wanted local, slurm or ray")


def _ray_is_there() -> bool:
    """Whether there is a cluster to join, or Ray has been imported, and set up, before."""
    current = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    return "ray" in sys.modules or bool(os.environ.get("RAY_ADDRESS")) or current.exists()


@contextlib.contextmanager
def _begun(ray: Any) -> Iterator[None]:
    """A cluster, until its end; Ray lets workers import from the folder in which it is begun, so that is an empty one."""
    with tempfile.TemporaryDirectory(prefix="jaxmodels-ray-") as empty:
        with _one_line("--on ray"), contextlib.chdir(empty), starting():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


def _read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(
                f"--resources {text}: {word} has no value; wanted names and values, as in partition=gpu,time=60"
            )
        found[name.strip()] = value.strip()
        for kind in (float, int):
            with contextlib.suppress(ValueError):
                found[name.strip()] = kind(value)
    return found


@contextlib.contextmanager
def _one_line(what: str) -> Iterator[None]:
    """What a library has to say of the user's words, in one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{what}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """What is started here never hears of Ctrl-C on this terminal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Submitit:
    """Processes on this computer, or Slurm's jobs. Its folder holds pickles, which it reads: nobody else may write there."""

    def __init__(self, submitit: Any, on: str, folder: Path, asked: dict[str, Any]):
        self.submitit, self.on, self.gpus = submitit, on, 0
        self.told: set[Any] = set()
        if on == "local":
            self.gpus = asked.pop("gpus_per_node", 0)
            if asked:
                raise ValueError(
                    f"--resources: local jobs ask for gpus_per_node alone; came {', '.join(asked)}"
                )
            self.executor = submitit.LocalExecutor(folder)
            self.executor.update_parameters(timeout_min=YEAR)
        else:
            with _one_line("--on slurm"):
                self.executor = submitit.SlurmExecutor(folder)
            with _one_line("--resources"):
                first = {
                    "time": HOURS * 60,
                    "job_name": folder.parent.name,
                    "setup": [f"export {VARIABLE}=1"],
                }
                self.executor.update_parameters(**{**first, **asked})

    def submit(self, words: list[str], number: int) -> Any:
        """Starts job `number`: jaxmodels.sweeps.worker with these words."""
        if self.gpus:
            mine = list(range(number * self.gpus, (number + 1) * self.gpus))
            self.executor.update_parameters(gpus_per_node=self.gpus, visible_gpus=mine)
        command = [*python("jaxmodels.sweeps.worker"), *words]
        with _one_line(f"--on {self.on}"), _without_interrupts(), starting():
            return self.executor.submit(self.submitit.helpers.CommandFunction(command, verbose=False))

    def done(self, job: Any) -> bool:
        """Whether it is over, however it ended."""
        return job.done()

    def ended(self, job: Any) -> str:
        """How, in a word or two."""
        text = str(job.exception()) if job.paths.result_pickle.exists() else job.state
        found = re.findall(r"died with <Signals\.(\w+)|(exit status \d+)", text)
        return "".join(found[-1]) if found else text.strip().splitlines()[-1]

    def stop(self, job: Any, folder: Path) -> None:
        """Asks it, once, to save and end. folder: of its first loop, which says what process that is here."""
        at = worker.holder(folder) if self.on == "local" else None
        whom = job.job_id if self.on == "slurm" else at[0] if at and at[1] == platform.node() else 0
        if not whom or whom in self.told:
            return
        self.told.add(whom)
        if self.on == "slurm":
            job.cancel(check=False)
        else:
            os.kill(whom, signal.SIGTERM)


class _Ray:
    """Tasks of a Ray cluster, as _Submitit; of RAY_ADDRESS, the one that runs here, or else one of this computer alone."""

    def __init__(self, ray: Any, asked: dict[str, Any]):
        self.ray, self.told = ray, set[Any]()
        with _one_line("--resources"):
            self.task = ray.remote(**{"num_cpus": 1, "max_retries": 0, **asked})(worker.run)

    def submit(self, words: list[str], number: int) -> Any:
        return self.task.remote(words, os.getcwd())

    def done(self, job: Any) -> bool:
        return bool(self.ray.wait([job], timeout=0)[0])

    def ended(self, job: Any) -> str:
        try:
            status = self.ray.get(job)
        except self.ray.exceptions.RayError as error:
            return type(error).__name__
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def stop(self, job: Any, folder: Path) -> None:
        if job not in self.told:
            self.told.add(job)
            self.ray.cancel(job)


def check_free(path: Path, on: str) -> None:
    """Raises where jobs still train in the sweep's folder; new jobs (on) wait for them."""
    for lock in (path / "together").glob("*/.lock"):
        if not on and (at := worker.holder(lock.parent)):
            raise ValueError(
                f"{lock.parent} is still trained by process {at[0]} on {at[1]}, a job of --on; wait for it, stop it, or "
                "give --on again"
            )


def train(setup: Setup, left: Sequence[Member], at: _Submitit | _Ray, workers: int) -> dict[str, str]:
    """Trains these members by as many jobs; gives why those that are still without a result have none, by name.

    A job that ends before its members do is started again once, and goes on from its checkpoints.
    """
    names = {f: loop_of(f).members for f in assign(setup, left, workers)}
    jobs: list[list[Path]] = [[] for _ in range(min(workers, len(names)))]
    for folder in sorted(names, key=lambda f: -len(names[f])):  # the longest first, to whoever has least
        min(jobs, key=lambda of: sum(len(names[f]) for f in of)).append(folder)

    def missing(i: int) -> list[str]:
        return [n for f in jobs[i] for n in names[f] if result_of(setup.path / "members" / n) is None]

    def submit(i: int) -> Any:
        return at.submit([str(setup.path.resolve()), *(f.name for f in jobs[i])], i)

    setup.console.say(
        f"{len(jobs)} jobs of {', '.join(str(len(missing(i))) for i in range(len(jobs)))} members"
    )
    lost: dict[str, str] = {}
    with Signals() as signals:
        running = {i: submit(i) for i in range(len(jobs))}
        again = set(running)
        while running:
            time.sleep(POLL)
            for i, job in list(running.items()):
                if signals.received:
                    at.stop(job, jobs[i][0])
                if not at.done(job) or any(
                    worker.holder(f) for f in jobs[i]
                ):  # a command may outlive who started it
                    continue
                del running[i]
                if signals.received:
                    continue
                if not (of := missing(i)):
                    setup.console.say(f"job {i + 1} of {len(jobs)} is done", "dim")
                    continue
                reason = _reason(jobs[i][0], at.ended(job))
                if i in again:
                    again.discard(i)
                    setup.console.warn(f"job {i + 1} of {len(jobs)} is started again: {reason}")
                    running[i] = submit(i)
                else:
                    lost |= dict.fromkeys(of, reason)
        if signals.received:
            raise Stopped(signals.received, 0)
    return lost


def assign(setup: Setup, left: Sequence[Member], workers: int) -> list[Path]:
    """The folders of loops of these members: those that had begun, and new ones, each no more than a job's share."""
    begun, rest = begun_of(setup, left)
    found = [folder for folder, _, _ in begun]
    for programs, members in grouped(setup, rest):
        parts = math.ceil(len(members) / min(math.ceil(len(left) / workers), programs.lockstep()))
        for i in range(parts):
            some = members[i * len(members) // parts : (i + 1) * len(members) // parts]
            found.append(new_folder(setup.path))
            claim(found[-1], some, None)
    return found


def _reason(folder: Path, ended: str) -> str:
    log, said = folder / "log", []
    with contextlib.suppress(OSError, BadFile):
        said = [line.decode(errors="replace") for line in read_lines(log)[0]]
    if said and said[-1].startswith("error: "):
        return said[-1].removeprefix("error: ")
    return f"it ended with {ended}; see {log if said else folder.parents[1]}"
