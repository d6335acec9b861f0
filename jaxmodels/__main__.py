"""The command jaxmodels, and python -m jaxmodels."""

import os
import sys

if (
    __name__ == "__main__" and not sys.flags.safe_path
):  # else an optax.py in the working folder would be imported
    folder = sys.path.pop(0)
    if __file__.startswith(os.path.join(folder, "")):  # jaxmodels itself lies there
        sys.path.append(folder)

import contextlib

from jaxmodels import cli
from jaxmodels.launch import hugepages, supervisor


def main() -> int:
    """Runs one command of this process's own arguments and gives its exit status."""
    hugepages.restart()
    return supervisor.work(_finished) if supervisor.stand(sys.argv[1:]) else _finished()


def _finished() -> int:
    """The command's status, after what it said is written; what cannot be, such as to a closed pipe, is lost.

    It would else be tried again at Python's end, which is then status 120. Only a lost result, of --json, is
    a failure.
    """
    return _flushed(cli.main(leave=_at_once))


def _at_once(status: int) -> int:
    """Ends the process without Python's own end: a program that is being compiled, in threads of XLA's, would crash it."""
    os._exit(_flushed(status))


def _flushed(status: int) -> int:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            if stream is sys.stdout and "--json" in sys.argv:
                status = status or 1
    return status


if __name__ == "__main__":
    raise SystemExit(main())
