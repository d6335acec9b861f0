"""Huge pages of memory for the temporary arrays of a step on CPUs.

XLA's CPU runtime allocates the temporaries of every step anew, and Linux hands such memory out in pages
of 4 KiB, each by a fault: a fifth of a small GPT's time. glibc (2.35 and newer) asks for pages of 2 MiB
where its environment tells it to, which only a process that starts can be told. So the command starts
itself again; JAXMODELS_HUGEPAGES=0 turns that off.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

SWITCH = "JAXMODELS_HUGEPAGES"
TUNABLES, HUGETLB = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
OFFERED = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart() -> None:
    """Becomes the same command, of the same process id, with huge pages.

    Returns where there is nothing to gain.

    Nothing is done where JAXMODELS_HUGEPAGES is 0, or where the user has set glibc.malloc.hugetlb in
    GLIBC_TUNABLES.
    """
    tunables = os.environ.get(TUNABLES, "")
    if os.environ.get(SWITCH) == "0" or HUGETLB in tunables or not sys.executable or not _available():
        return
    os.environ[TUNABLES] = ":".join(filter(None, (tunables, f"{HUGETLB}=1")))
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _available() -> bool:
    """Whether Linux gives huge pages to those that ask, and glibc can ask."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        recent = name == "glibc" and tuple(map(int, version.split("."))) >= (2, 35)
        return recent and "[madvise]" in OFFERED.read_text()
    except (AttributeError, ValueError, OSError):
        return False
