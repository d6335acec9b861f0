"""Locks between processes: on a file, by one owner; on a checkpoint's folder, shared by its readers.

The system releases a lock when its process ends, so nothing is left behind. Checkpoints are read while
their run goes on and removes older ones: who reads one holds it. Where a file system has no locks, no
checkpoint is held, and one that was removed meanwhile is found missing.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TextIO

from jaxmodels.runs.files import open_appending


class Taken(Exception):
    """Another process has the lock; the text is what it wrote into the file."""


def take(path: Path, owner: str, *, wait: bool = False) -> TextIO:
    """Locks a file and writes its owner into it. Closing the file releases the lock.

    Raises Taken, unless it waits.
    """
    lock = os.fdopen(open_appending(path), "a+")
    if wait:
        fcntl.flock(lock, fcntl.LOCK_EX)
    elif not _locked(lock):
        lock.seek(0)
        with lock:
            raise Taken(lock.read().strip())
    lock.truncate(0)
    lock.write(owner)
    lock.flush()
    return lock


def owner(path: Path) -> str | None:
    """What the process that has the lock of this file wrote into it; None where nobody has it."""
    with os.fdopen(open_appending(path), "a+") as lock:
        if _locked(lock):
            return None
        lock.seek(0)
        return lock.read()


def _locked(lock: TextIO) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def hold(folder: Path) -> int | None:
    """Keeps a folder from being removed until the handle is given to os.close; None where it is absent."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # it is being removed
        os.close(handle)
        return None
    except OSError:
        pass
    try:
        named, opened = os.stat(folder), os.fstat(handle)
        if (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino):
            return handle
    except FileNotFoundError:
        pass
    os.close(handle)
    return None


def rename_unheld(folder: Path, target: Path) -> bool:
    """Renames a folder that no one holds; False where someone does."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
        folder.rename(target)
        return True
    finally:
        os.close(handle)
