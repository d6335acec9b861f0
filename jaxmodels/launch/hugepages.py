"""Large pages of memory for the temporary arrays of a step on CPUs.

XLA's CPU runtime allocates the temporaries of every step anew, and Linux hands such memory out in pages of 4
KiB, each by a fault: a fifth of a small GPT's time. glibc (2.35 and newer) asks for pages of 2 MiB where its
environment tells it to, which only a process that starts can be told.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

TUNABLES, WANTED = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart() -> None:
    """Becomes the same command, with the same process id, that uses large pages; returns where there is nothing to gain.

    Nothing is done where the user has set glibc.malloc.hugetlb in GLIBC_TUNABLES (0: never).
    """
    tunables = os.environ.get(TUNABLES, "")
    if WANTED in tunables or not sys.executable or not _offered():
        return
    os.environ[TUNABLES] = ":".join(filter(None, (tunables, f"{WANTED}=1")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _offered() -> bool:
    """Whether Linux gives large pages to those that ask, and glibc can."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        return (
            name == "glibc"
            and tuple(map(int, version.split("."))) >= (2, 35)
            and "[madvise]" in PAGES.read_text()
        )
    except (AttributeError, ValueError, OSError):
        return False
