"""Checkpoints that are read while their run goes on and removes older ones: who reads one holds it, as long as it lives.

A lock on the folder itself, shared by readers: no file to be left behind, and the system lets go of it when a
process ends. Where a file system has no locks, nothing is held, and what was removed meanwhile is found
missing.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def hold(folder: Path) -> int | None:
    """Keeps a folder from being removed until the handle is given to os.close; None where it is gone."""
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
        here = os.stat(folder)
        there = os.fstat(handle)
        if (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino):
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
