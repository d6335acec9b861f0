"""Exit statuses of the commands, in one table; an exception with one of its own has it as `exit_status`."""

from __future__ import annotations

import signal

DONE = 0
FAILED = 1  # also for want of disk, memory or threads
BAD_INPUT = 2
NOT_FINITE = 3  # the loss or the gradient
STALLED = 75  # no step ended within --stall-after; EX_TEMPFAIL of sysexits.h: try again
PEER_LOST = 76  # another process of the run was lost


def of_signal(number: int) -> int:
    """The status of a process that a signal ended, as a shell reports it."""
    return 128 + number


INTERRUPTED = of_signal(signal.SIGINT)  # 130: stopped by Ctrl-C, and saved
TERMINATED = of_signal(signal.SIGTERM)  # 143: stopped by SIGTERM, and saved
ABORTED = of_signal(signal.SIGABRT)  # 134: JAX's runtime ends a process whose peers are gone so
KILLED = of_signal(signal.SIGKILL)  # 137: also the system's, for want of memory

ORDERLY = (DONE, INTERRUPTED, TERMINATED)  # all processes of a run end so together
RESTARTABLE = (STALLED, PEER_LOST, ABORTED, KILLED)  # the same command may go on from the newest checkpoint


class FirstFailed(Exception):
    """What process 0 does for all failed there, and it printed why; exit_status is that of its exception."""

    def __init__(self, exit_status: int, text: str):
        super().__init__(text)
        self.exit_status = exit_status


def status_of(error: BaseException) -> int:
    """The exception's own exit status, else that of its kind."""
    kind = BAD_INPUT if isinstance(error, ValueError | ImportError) else FAILED
    return getattr(error, "exit_status", kind)
