"""The command line. Nothing heavy is imported before a command is known to need it.

Exit statuses: see jaxmodels.launch.exit_statuses.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from jaxmodels.cli import planning, training, using
from jaxmodels.cli.parsing import fail
from jaxmodels.launch.exit_statuses import BAD_INPUT, DONE, FAILED, INTERRUPTED, PEER_LOST, FirstFailed

HELP = """\
usage: jaxmodels COMMAND …

  train FILE [--knob VALUE …] [options]   train an experiment's file, or go on where its run stopped
  sweep FILE --knob V1,V2,… [options]     train many settings together, and compare them
  plan FILE --on v5p-512 [options]        memory, speed and cost of training on a machine that is not here
  launch FILE --processes N …             the same in N processes on this computer
  template slurm|jobset|tpu FILE …        a script that trains it on a cluster
  evaluate RUN [--data PATH]              evaluate a run's checkpoint, also on other data
  evaluate FILE|RUN --weights PATH        evaluate weights from elsewhere on an experiment's data
  predict RUN FILES…                      what a run's model says of pictures, and drawings of it
  generate RUN|FOLDER --prompt TEXT …     let the language model of a run, or of a folder of weights, write
  report RUN…|SWEEP -o report.html        one HTML file of a run, of several beside each other, or of a sweep
  watch RUN|SWEEP                         how far it is, in the terminal, until it ends
  find-rate FILE                          the loss as the learning rate rises: which one to begin with
  find-batch FILE                         the largest batch that fits the device
  list [FOLDER]                           experiments, what they state, and their last results
  list --models [FAMILY]                  models, their parameters, and whose weights they read
  doctor                                  devices, versions, what works and how fast
  tokenize FILES OUT                      train a tokenizer on texts and write their tokens
  convert FOLDER OUT                      check and rewrite a Hugging Face folder, or a file of llama2.c
  verify-resume FILE [--knob VALUE …]     prove that an experiment survives kill -9, bit for bit

jaxmodels COMMAND --help                  the options of a command
jaxmodels train FILE --help               the knobs of a file, with types and defaults

A FILE and a RUN's folder are code: the file, or the folder's experiment.py, is executed (but by list and watch).
A FOLDER of weights is data, and never executed.

Exit status: 0 done, 1 failed (also for want of disk, memory or threads), 2 bad input, 3 the loss was not finite,
75 no step came to its end within --stall-after, 76 another process of the run was lost
(both: the same command goes on), 130 stopped by Ctrl-C and saved, 143 stopped by SIGTERM and saved.
"""


# Commands that write no checkpoints: an absent file is the user's mistake.
READING = ("evaluate", "predict", "generate", "report", "watch", "list", "tokenize", "convert", "plan")


def main(argv: Sequence[str] | None = None, *, leave: Callable[[int], int] = int) -> int:
    """Runs one command and gives its exit status; leave(status): how it ends where it was interrupted at work."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": training.train,
        "sweep": training.sweep,
        "plan": planning.plan,
        "launch": training.launch,
        "template": training.template,
        "evaluate": using.evaluate,
        "predict": using.predict,
        "generate": using.generate,
        "report": using.report,
        "watch": using.watch,
        "find-rate": planning.find_rate,
        "find-batch": planning.find_batch,
        "list": planning.list_experiments,
        "doctor": planning.doctor,
        "tokenize": using.tokenize,
        "convert": using.convert,
        "verify-resume": training.verify,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return DONE if argv else BAD_INPUT
    if argv[0] == "--version":
        from jaxmodels import __version__

        print(f"jaxmodels {__version__}")
        return 0
    if argv[0] not in commands:
        import difflib

        close = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(commands)}"
        return fail(f"there is no command {argv[0]!r}; {hint}", BAD_INPUT)
    try:
        return commands[argv[0]](argv[1:])
    except KeyboardInterrupt:
        return leave(
            fail(
                "interrupted; what was saved last is kept, and the same command goes on from there",
                INTERRUPTED,
            )
        )
    except Exception as error:
        if os.environ.get("JAXMODELS_TRACEBACK"):
            raise
        missing = isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError)
        if missing and argv[0] in READING:
            return fail(_missing(error), BAD_INPUT)
        status = _explain(error)
        if status is None:
            raise
        return status


def _missing(error: Exception) -> str:
    """An error of the system's in words; one of this package's has them already."""
    name = getattr(error, "filename", None)
    if name is None:
        return str(error)
    what = (
        "nothing"
        if isinstance(error, FileNotFoundError)
        else "a folder in place of a file, or the other way round,"
    )
    return f"{os.fsdecode(name)}: got {what} there; expected a file or a folder to read. Give the path of one"


def _explain(error: Exception) -> int | None:
    """The exit status after a user's mistake or the world's fault in one message; None for anything else."""
    if isinstance(error, FirstFailed):  # process 0 has printed it
        return error.exit_status
    if training.in_company() and _of_xla(error):
        return fail(f"a computation across processes failed: {str(error).splitlines()[0][:300]}", PEER_LOST)
    if (own := getattr(error, "exit_status", None)) is not None:
        return fail(str(error), own)
    if isinstance(error, MemoryError | OSError):
        return fail(
            str(error) or "there is not enough memory. Use a smaller batch, or raise the limit (ulimit -v)",
            FAILED,
        )
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        cure = "Raise the limits (ulimit -u, ulimit -v), or end other processes"
        return fail(f"got no new thread from the system; expected room for one more. {cure}", FAILED)
    absent = isinstance(
        error, ModuleNotFoundError
    )  # an import of the experiment; an absent extra has words of its own
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
    """Whether XLA's runtime has failed; JAX hands its status on as one or another type."""
    import re

    status = re.match(r"[A-Z]+(_[A-Z]+)*: ", str(error)) is not None
    return type(error).__name__ == "JaxRuntimeError" or (status and not _raised_here(error))
