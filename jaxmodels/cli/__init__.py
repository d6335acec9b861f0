"""The command line. Nothing heavy is imported before a command is known to need it.

Exit statuses: see jaxmodels.launch.exit_statuses.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxmodels.cli.command import Command, in_company
from jaxmodels.cli.parsing import fail
from jaxmodels.launch import interrupts
from jaxmodels.launch.exit_statuses import BAD_INPUT, DONE, FAILED, INTERRUPTED, PEER_LOST, FirstFailed

# The commands in the order of the help, each with the module of jaxmodels.cli that it stands in.
COMMANDS = {
    "train": "training",
    "sweep": "training",
    "plan": "planning",
    "launch": "training",
    "template": "training",
    "evaluate": "trained",
    "predict": "trained",
    "generate": "trained",
    "transcribe": "speech",
    "speak": "speech",
    "recommend": "trained",
    "serve": "serving",
    "report": "trained",
    "watch": "trained",
    "find-rate": "planning",
    "find-batch": "planning",
    "list": "planning",
    "doctor": "planning",
    "tokenize": "trained",
    "convert": "trained",
    "export": "trained",
    "verify-resume": "training",
    "bench": "benchmarking",
}

NOTES = """\
jaxmodels COMMAND --help                  the options of a command
jaxmodels train FILE --help               the knobs of a file, with types and defaults

A FILE and a RUN's folder are code: the file, or the folder's experiment.py, is executed
(except by list and watch). A FOLDER of weights is data, and never executed.

Exit status: 0 done, 1 failed (also for want of disk, memory or threads), 2 bad input,
3 the loss was not finite, 75 no step came to its end within --stall-after,
76 another process of the run was lost (both: the same command goes on),
130 stopped by Ctrl-C and saved, 143 stopped by SIGTERM and saved.
"""


def command_named(name: str) -> Command:
    """The command; only its module is imported, as making the options of all takes a tenth of a second."""
    module = importlib.import_module(f"jaxmodels.cli.{COMMANDS[name]}")
    return next(x for x in vars(module).values() if isinstance(x, Command) and x.name == name)


STOPPED = "interrupted; the newest checkpoint is kept, and the same command goes on from it"


def help_text() -> str:
    """What `jaxmodels --help` prints: every command with its arguments, and the exit statuses."""
    lines = []
    for command in map(command_named, COMMANDS):
        for arguments, summary in {command.usage: command.summary, **command.also}.items():
            lines.append(f"  {f'{command.name} {arguments}':39} {summary}".rstrip())
    return "\n".join(["usage: jaxmodels COMMAND …", "", *lines, "", NOTES])


def main(argv: Sequence[str] | None = None, *, leave: Callable[[int], int] = int) -> int:
    """Runs one command and gives its exit status; leave(status) ends a command that was interrupted."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if not argv or argv[0] in ("-h", "--help"):
        print(help_text(), end="")
        return DONE if argv else BAD_INPUT
    if argv[0] == "--version":
        from jaxmodels import __version__

        print(f"jaxmodels {__version__}")
        return DONE
    if argv[0] not in COMMANDS:
        import difflib

        close = difflib.get_close_matches(argv[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(COMMANDS)}"
        return fail(f"there is no command {argv[0]!r}; {hint}", BAD_INPUT)
    command = command_named(argv[0])
    try:
        return command.run(argv[1:])
    except KeyboardInterrupt:
        return leave(fail(STOPPED, INTERRUPTED))
    except Exception as error:
        if interrupts.received():
            return leave(fail(STOPPED, INTERRUPTED))
        if os.environ.get("JAXMODELS_TRACEBACK"):
            raise
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if missing and command.reads:
            return fail(_missing(error), BAD_INPUT)
        status = _explain(error)
        if status is None:
            raise
        return status


def _missing(error: Exception) -> str:
    """The message for a path that cannot be read; an error of this package's has one already."""
    name = getattr(error, "filename", None)
    if name is None:
        return str(error)
    is_absent = isinstance(error, FileNotFoundError)
    got = "nothing" if is_absent else "a folder in place of a file, or the other way round,"
    return f"{os.fsdecode(name)}: got {got} there; expected a file or a folder to read. Give the path of one"


def _explain(error: Exception) -> int | None:
    """Prints a user's mistake or a system's fault, and gives its exit status; None for any other error."""
    if isinstance(error, FirstFailed):  # process 0 has printed it
        return error.exit_status
    if in_company() and _of_xla(error):
        return fail(f"a computation across processes failed: {str(error).splitlines()[0][:300]}", PEER_LOST)
    if (own := getattr(error, "exit_status", None)) is not None:
        return fail(str(error), own)
    if isinstance(error, MemoryError | OSError):
        text = "got no more memory; expected enough. Use a smaller batch, or raise the limit (ulimit -v)"
        return fail(str(error) or text, FAILED)
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        advice = "Raise the limits (ulimit -u, ulimit -v), or end other processes"
        return fail(f"got no new thread from the system; expected room for one more. {advice}", FAILED)
    # A ModuleNotFoundError comes from the experiment's own imports; an absent extra raises another error.
    absent = isinstance(error, ModuleNotFoundError)
    if isinstance(error, ValueError | ImportError) and not absent and _raised_here(error):
        return fail(str(error), BAD_INPUT)
    return None


def _raised_here(error: BaseException) -> bool:
    """Whether the innermost frame is this package's: then the message was written for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    here = str(Path(__file__).resolve().parents[1]) + os.sep
    return trace is not None and str(Path(trace.tb_frame.f_code.co_filename).resolve()).startswith(here)


def _of_xla(error: Exception) -> bool:
    """Whether XLA's runtime failed; JAX raises its status as one of several types."""
    status = re.match(r"[A-Z]+(_[A-Z]+)*: ", str(error)) is not None
    return type(error).__name__ == "JaxRuntimeError" or (status and not _raised_here(error))
