"""No message that cannot be printed ends anything, and want of memory or threads is one message."""

from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from files import bare_jax
from states import same_bits

from jaxmodels import Options
from jaxmodels.console import Console
from jaxmodels.launch import exit_statuses
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.runs import metrics_file
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.metrics_file import json_lines
from jaxmodels.training import feed, runner, watchdog
from jaxmodels.training.log import Log

fast = pytest.mark.fast

BARE = bare_jax.__file__


class Full(io.StringIO):
    """A file on a disk without room."""

    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


class Closed(Full):
    """A pipe that nobody reads."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")


@fast
@pytest.mark.parametrize("kind", [Full, Closed, None])
def test_the_console_goes_on_where_nothing_can_be_printed(monkeypatch, kind):
    monkeypatch.setattr(sys, "stdout", kind and kind())
    monkeypatch.setattr(sys, "stderr", kind and kind())
    console = Console()
    console.say("hello")
    console.warn("careful")
    console.table("", ["a"], [["1"]])
    with console.busy("waiting", after=0.0), console.progress(0, 2):
        console.update(2, {"loss": 1.0}, 1.0, 0.0)


def run(folder: Path | None, **more) -> runner.Result:
    experiment, options, console = (
        bare_jax.build(bare_jax.Config(save_every=2, steps=8)),
        Options(mesh="data=1"),
        Console(),
    )
    if folder is None:
        return runner.run(experiment, options, console=console)
    opened = Folder(folder, keep=2, warn=console.warn)
    try:
        opened.open(RunDefinition("", {}, {}))
        return runner.run(experiment, options, folder=opened, console=console, **more)
    finally:
        opened.close()


@pytest.mark.slow
@fast
def test_a_run_comes_to_its_end_where_neither_its_log_nor_its_warnings_can_be_written(tmp_path, monkeypatch):
    """The log's thread died of the warning, and the next checkpoint waited for it for ever."""
    wanted = run(None)

    def full(path: Path) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    monkeypatch.setattr(sys, "stderr", Full())
    monkeypatch.setattr(metrics_file, "open_appending", full)
    result: list[runner.Result] = []
    thread = threading.Thread(target=lambda: result.append(run(tmp_path / "run")), daemon=True)
    thread.start()
    thread.join(60)
    assert result
    same_bits(result[0].state, wanted.state)


@fast
def test_whoever_waits_for_the_log_hears_that_its_thread_has_ended(monkeypatch):
    monkeypatch.setattr(Log, "_work", lambda *_: None)
    log = Log([lambda step, values: None], lambda text: None)
    log(1, {})
    with pytest.raises(OSError, match=r"the thread tracker .* has ended.*same command again"):
        log.flush_first()
    log.close()


@fast
def test_a_warning_that_fails_does_not_end_the_thread_of_the_log(tmp_path):
    def warn(text: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    def broken(step, values):
        raise ConnectionError

    log = Log([broken], warn)
    log(1, {})
    log.flush_first()
    log.close()
    json_lines(tmp_path / "absent" / "metrics.jsonl", warn)(1, {})


@fast
def test_whoever_waits_for_data_hears_that_its_thread_has_ended(monkeypatch):
    monkeypatch.setattr(feed.Feed, "_work", lambda self, segments: None)
    data, mesh = bare_jax.build(bare_jax.Config()).train, make_mesh("data=1")
    with pytest.raises(RuntimeError, match="reads the data has ended without a word"):
        next(feed.Feed(data, mesh, [(0, 1)], resident=False).until())


@fast
def test_a_stall_ends_the_process_though_it_cannot_say_so(monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(os, "_exit", ended.append)
    for stream in (Full(), Closed(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        watchdog.Watchdog(1.0)._end()
    assert ended == [exit_statuses.STALLED] * 3


@pytest.mark.slow
@fast
def test_want_of_threads_is_one_message_and_no_hang(tmp_path, monkeypatch, capsys):
    from jaxmodels import cli

    start, without = threading.Thread.start, ["checkpoint"]

    def none_left(thread: threading.Thread) -> None:
        if thread.name.split()[0] in without:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", none_left)
    words = [
        "train",
        BARE,
        "--steps",
        "4",
        "--save-every",
        "2",
        "--mesh",
        "data=1",
        "--folder",
        str(tmp_path / "run"),
    ]
    assert cli.main(words) == 0  # it waits where it cannot write in the background
    assert capsys.readouterr().err == "" and (tmp_path / "run" / "checkpoints" / "4").is_dir()
    without[:] = ["tracker"]
    assert cli.main(words) == 1  # it cannot begin
    assert (
        "got no new thread from the system; expected room for one more. Raise the limits"
        in capsys.readouterr().err
    )
    monkeypatch.undo()
    assert cli.main(words) == 0


def started(source: str, folder: Path, *words: str, **streams) -> subprocess.CompletedProcess:
    """A command, after some Python of a fault."""
    program = f"import sys\n{source}\nfrom jaxmodels.__main__ import main\nsys.exit(main())"
    command = [
        sys.executable,
        "-c",
        program,
        "train",
        BARE,
        "--folder",
        str(folder),
        "--mesh",
        "data=1",
        *words,
    ]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(command, env=env, timeout=120, **streams)


def test_a_command_ends_as_it_should_where_both_outputs_are_full(tmp_path):
    with open("/dev/full", "w") as full:
        ended = started("", tmp_path / "run", "--save-every", "2", stdout=full, stderr=full)
        assert ended.returncode == 0
        assert (tmp_path / "run" / "checkpoints" / "10").is_dir()
        assert (
            started("", tmp_path / "run", "--save-every", "2", "--json", stdout=full, stderr=full).returncode
            == 1
        )


# With 40 MiB no library can be loaded; with next to none, Python itself hangs where a thread dies before it
# has begun.
LIMITED = """
import resource, threading
from jaxmodels.runs import checkpoint
save = checkpoint.Checkpoints.save
def limited(self, *how, **more):
    checkpoint.Checkpoints.save = save
    used = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) << 10
    resource.setrlimit(resource.RLIMIT_AS, (used + (40 << 20),) * 2)
    return save(self, *how, **more)
checkpoint.Checkpoints.save = limited
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_want_of_memory_is_one_message_and_no_hang_at_the_end(tmp_path):
    begun = time.monotonic()
    ended = started(LIMITED, tmp_path / "run", "--save-every", "2", capture_output=True, text=True)
    assert ended.returncode == 1, ended.stderr
    assert "Traceback" not in ended.stderr and "error: " in ended.stderr.splitlines()[-1]
    assert time.monotonic() - begun < 60
