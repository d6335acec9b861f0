"""The command jaxmodels, and python -m jaxmodels."""

import os
import sys

if __name__ == "__main__" and not sys.flags.safe_path:
    folder = sys.path.pop(0)  # else an optax.py in the working folder would be imported
    if __file__.startswith(os.path.join(folder, "")):  # jaxmodels itself lies there
        sys.path.append(folder)

import contextlib

from jaxmodels import cli
from jaxmodels.launch import hugepages, interrupts, supervisor
from jaxmodels.launch.exit_statuses import FAILED


def main() -> int:
    """Runs one command with this process's own arguments and gives its exit status."""
    hugepages.restart()
    interrupts.watch()
    return supervisor.work(_run) if supervisor.stand(sys.argv[1:]) else _run()


def _run() -> int:
    """The command's status, after its output is written."""
    return _flushed(cli.main(leave=_exit_now))


def _exit_now(status: int) -> int:
    """Ends the process without Python's own end, which crashes while threads of XLA's compile a program."""
    os._exit(_flushed(status))


def _flushed(status: int) -> int:
    """The status after the output is written; what cannot be, such as to a closed pipe, is dropped.

    Else Python would try again at its end, and exit with status 120. Only a lost result, of --json, is a
    failure.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and "--json" in sys.argv:
                status = status or FAILED
    return status


if __name__ == "__main__":
    raise SystemExit(main())
