"""Members trained by jobs: processes on this computer, Slurm's through submitit, or Ray's tasks.

A job is a command (jaxmodels.sweeps.worker) that trains some of the sweep's loops; it reads and writes the
sweep's folder and needs nothing else. Loops are assigned here, where the sweep's folder is locked, and each
is locked by the job that trains it, so no member is trained twice.
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
HOURS = 24  # of a Slurm job, by default
YEAR = 365 * 24 * 60  # minutes


@contextlib.contextmanager
def open_executor(on: str, path: Path, resources: str) -> Iterator[SubmititExecutor | RayExecutor]:
    """The executor of --on: local, slurm or ray.

    path: the sweep's folder. resources: of each job, as in partition=gpu,time=60.
    """
    requested = _parse(resources)
    if on == "ray":
        if not _has_ray_cluster():
            # With this Ray listens at 127.0.0.1 alone.
            os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        try:
            import ray
        except ImportError as error:
            raise ImportError("--on ray needs ray; pip install 'jaxmodels[ray]'") from error
        with contextlib.ExitStack() as stack:
            if not ray.is_initialized():
                os.environ.setdefault("RAY_worker_niceness", "0")  # of a cluster that this starts
                stack.enter_context(_ray_cluster(ray))
            yield RayExecutor(ray, requested)
    elif on in ("local", "slurm"):
        # Without this the import sets up all logging anew, on stdout.
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
        try:
            import submitit
        except ImportError as error:
            raise ImportError(f"--on {on} needs submitit; pip install 'jaxmodels[slurm]'") from error
        yield SubmititExecutor(submitit, on, path / "submitit", requested)
    else:
        raise ValueError(f"--on: got {on}; expected local, slurm or ray. Give one of these")


def _has_ray_cluster() -> bool:
    """Whether there is a cluster to join, or Ray was imported, and set up, before."""
    current = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster")
    return "ray" in sys.modules or bool(os.environ.get("RAY_ADDRESS")) or current.exists()


@contextlib.contextmanager
def _ray_cluster(ray: Any) -> Iterator[None]:
    """A cluster of this computer, started in an empty folder, since its workers import from that folder."""
    with tempfile.TemporaryDirectory(prefix="jaxmodels-ray-") as empty:
        with _errors_in_one_line("--on ray"), contextlib.chdir(empty), starting():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


def _parse(text: str) -> dict[str, Any]:
    """Resources by name; values are numbers where they can be."""
    resources: dict[str, Any] = {}
    for word in filter(None, text.split(",")):
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(
                f"--resources {text}: got {word} without a value; expected names and values. "
                "Write partition=gpu,time=60"
            )
        resources[name.strip()] = value.strip()
        for kind in (float, int):
            with contextlib.suppress(ValueError):
                resources[name.strip()] = kind(value)
    return resources


@contextlib.contextmanager
def _errors_in_one_line(option: str) -> Iterator[None]:
    """A library's error about an option as a ValueError of one line."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{option}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes that are started here never receive a Ctrl-C of this terminal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class SubmititExecutor:
    """Processes on this computer, or Slurm's jobs.

    Its folder holds pickles, which submitit reads: nobody else may write there.
    """

    def __init__(self, submitit: Any, on: str, folder: Path, resources: dict[str, Any]):
        self.submitit, self.on, self.gpus = submitit, on, 0
        self.stopped: set[Any] = set()
        if on == "local":
            self.gpus = resources.pop("gpus_per_node", 0)
            if resources:
                raise ValueError(
                    f"--resources: got {', '.join(resources)} for local jobs; expected gpus_per_node alone. "
                    "Leave out the others"
                )
            self.executor = submitit.LocalExecutor(folder)
            self.executor.update_parameters(timeout_min=YEAR)
        else:
            with _errors_in_one_line("--on slurm"):
                self.executor = submitit.SlurmExecutor(folder)
            with _errors_in_one_line("--resources"):
                setup = [f"export {VARIABLE}=1"]
                defaults = {"time": HOURS * 60, "job_name": folder.parent.name, "setup": setup}
                self.executor.update_parameters(**{**defaults, **resources})

    def submit(self, words: list[str], number: int) -> Any:
        """Starts job `number`: jaxmodels.sweeps.worker with these words."""
        if self.gpus:
            visible = list(range(number * self.gpus, (number + 1) * self.gpus))
            self.executor.update_parameters(gpus_per_node=self.gpus, visible_gpus=visible)
        command = [*python("jaxmodels.sweeps.worker"), *words]
        with _errors_in_one_line(f"--on {self.on}"), _without_interrupts(), starting():
            return self.executor.submit(self.submitit.helpers.CommandFunction(command, verbose=False))

    def done(self, job: Any) -> bool:
        """Whether it has ended, in whatever way."""
        return job.done()

    def end_reason(self, job: Any) -> str:
        """How a job ended: a signal, an exit status, or the state that Slurm has."""
        text = str(job.exception()) if job.paths.result_pickle.exists() else job.state
        reasons = re.findall(r"died with <Signals\.(\w+)|(exit status \d+)", text)
        return "".join(reasons[-1]) if reasons else text.strip().splitlines()[-1]

    def stop(self, job: Any, folder: Path) -> None:
        """Asks it, once, to save and end. folder: of its first loop, whose lock names the process."""
        if self.on == "slurm":
            if job.job_id not in self.stopped:
                self.stopped.add(job.job_id)
                job.cancel(check=False)
            return
        pid, host = worker.holder(folder) or (0, "")
        if pid and host == platform.node() and pid not in self.stopped:
            self.stopped.add(pid)
            os.kill(pid, signal.SIGTERM)


class RayExecutor:
    """Tasks of a Ray cluster, with the methods of SubmititExecutor.

    The cluster is that of RAY_ADDRESS, else the one that runs here, else one of this computer alone.
    """

    def __init__(self, ray: Any, resources: dict[str, Any]):
        self.ray, self.stopped = ray, set[Any]()
        with _errors_in_one_line("--resources"):
            self.task = ray.remote(**{"num_cpus": 1, "max_retries": 0, **resources})(worker.run)

    def submit(self, words: list[str], number: int) -> Any:
        """As SubmititExecutor's."""
        return self.task.remote(words, os.getcwd())

    def done(self, job: Any) -> bool:
        """As SubmititExecutor's."""
        return bool(self.ray.wait([job], timeout=0)[0])

    def end_reason(self, job: Any) -> str:
        """As SubmititExecutor's."""
        try:
            status = self.ray.get(job)
        except self.ray.exceptions.RayError as error:
            return type(error).__name__
        return signal.Signals(-status).name if status < 0 else f"exit status {status}"

    def stop(self, job: Any, folder: Path) -> None:
        """As SubmititExecutor's."""
        if job not in self.stopped:
            self.stopped.add(job)
            self.ray.cancel(job)


def check_free(path: Path, on: str) -> None:
    """Raises where jobs still train in the sweep's folder; new jobs (on) wait for them."""
    for lock in (path / "together").glob("*/.lock"):
        if not on and (holder := worker.holder(lock.parent)):
            pid, host = holder
            raise ValueError(
                f"{lock.parent}: got a loop that process {pid} on {host}, a job of --on, still trains; "
                "expected a free one. Wait for it, stop it, or give --on again"
            )


def train(
    setup: Setup, left: Sequence[Member], executor: SubmititExecutor | RayExecutor, workers: int
) -> dict[str, str]:
    """Trains these members by as many jobs; gives, by name, why members still have no result.

    A job that ends before its members do is started again once, and goes on from its checkpoints.
    """
    names = {folder: loop_of(folder).members for folder in assign(setup, left, workers)}
    jobs: list[list[Path]] = [[] for _ in range(min(workers, len(names)))]
    for folder in sorted(names, key=lambda folder: -len(names[folder])):
        least = min(jobs, key=lambda folders: sum(len(names[f]) for f in folders))
        least.append(folder)  # the longest loops first, each to the job with the fewest members

    def missing(i: int) -> list[str]:
        of_job = [name for folder in jobs[i] for name in names[folder]]
        return [name for name in of_job if result_of(setup.path / "members" / name) is None]

    def submit(i: int) -> Any:
        return executor.submit([str(setup.path.resolve()), *(f.name for f in jobs[i])], i)

    counts = ", ".join(str(len(missing(i))) for i in range(len(jobs)))
    setup.console.say(f"{len(jobs)} jobs of {counts} members")
    lost: dict[str, str] = {}
    with Signals() as signals:
        running = {i: submit(i) for i in range(len(jobs))}
        may_restart = set(running)
        while running:
            time.sleep(POLL)
            for i, job in list(running.items()):
                if signals.received:
                    executor.stop(job, jobs[i][0])
                # A command may outlive the process that started it.
                if not executor.done(job) or any(worker.holder(folder) for folder in jobs[i]):
                    continue
                del running[i]
                if signals.received:
                    continue
                if not (without_result := missing(i)):
                    setup.console.say(f"job {i + 1} of {len(jobs)} is done", "dim")
                    continue
                reason = _reason(jobs[i][0], executor.end_reason(job))
                if i in may_restart:
                    may_restart.discard(i)
                    setup.console.warn(f"job {i + 1} of {len(jobs)} is started again: {reason}")
                    running[i] = submit(i)
                else:
                    lost |= dict.fromkeys(without_result, reason)
        if signals.received:
            raise Stopped(signals.received, 0)
    return lost


def assign(setup: Setup, left: Sequence[Member], workers: int) -> list[Path]:
    """Folders of loops of these members: those that had begun, and new ones of at most one job's share."""
    begun, rest = begun_of(setup, left)
    loops = [folder for folder, _, _ in begun]
    share = math.ceil(len(left) / workers)
    for programs, members in grouped(setup, rest):
        count = math.ceil(len(members) / min(share, programs.most_members()))
        for i in range(count):
            start, stop = i * len(members) // count, (i + 1) * len(members) // count
            loops.append(new_folder(setup.path))
            claim(loops[-1], members[start:stop], None)
    return loops


def _reason(folder: Path, end: str) -> str:
    """Why a job ended: its log's error, else how its process ended."""
    log, lines = folder / "log", []
    with contextlib.suppress(OSError, BadFile):
        lines = [line.decode(errors="replace") for line in read_lines(log)[0]]
    if lines and lines[-1].startswith("error: "):
        return lines[-1].removeprefix("error: ")
    return f"it ended with {end}; see {log if lines else folder.parents[1]}"
