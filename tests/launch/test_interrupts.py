"""Ctrl-C ends a command with status 130, also where it arrives while Python cannot raise it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from files import bare_jax

from jaxmodels.launch import interrupts

IN_A_GC_CALLBACK = """
import gc, signal, sys
sent = []

def callback(phase, info):
    if "jax" in sys.modules and not sent:
        sent.append(True)
        signal.raise_signal(signal.SIGINT)

gc.callbacks.append(callback)
from jaxmodels.__main__ import main
sys.exit(main())
"""


def test_an_interrupt_in_a_callback_of_the_garbage_collector_ends_the_command_with_130(tmp_path):
    words = ["train", bare_jax.__file__, "--steps", "1000000", "--folder", str(tmp_path / "run")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", IN_A_GC_CALLBACK, *words]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 130, ended.stderr
    assert "Exception ignored" not in ended.stderr


IN_A_NATIVE_IMPORT = """
import os, signal, sys
os.environ["JAXMODELS_HUGEPAGES"] = "0"
from jaxmodels import cli
from jaxmodels.__main__ import main

def run(argv):
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("a native module failed to import") from None

cli.command_named = lambda name: type("Command", (), {"run": staticmethod(run), "reads": False})
sys.exit(main())
"""


def test_an_interrupt_that_became_another_error_ends_the_command_with_130():
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", IN_A_NATIVE_IMPORT, "doctor"]
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, "Traceback" in ended.stderr) == (130, False), ended.stderr


@pytest.mark.fast
def test_other_exceptions_that_python_ignores_are_shown_as_ever(monkeypatch):
    shown = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: shown.append(unraisable.exc_type))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    interrupts.watch()

    class Broken:
        def __del__(self):
            raise ZeroDivisionError

    Broken()
    assert shown == [ZeroDivisionError]
