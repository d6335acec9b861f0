"""The planning process: started with the environment of its target, asked by lines of JSON."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from types import TracebackType
from typing import Any

from jaxmodels.console import Console
from jaxmodels.launch.safe_path import python
from jaxmodels.planning import compilers
from jaxmodels.planning.targets import Target


class Client:
    """Asks a process for facts of experiments on one target; a context manager that ends the process."""

    def __init__(self, target: Target, console: Console):
        self._console = console
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self._process = subprocess.Popen(
            python("jaxmodels.planning.server"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **compilers.environment(target)},
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        self._errors.close()

    def ask(self, request: dict[str, Any], about: str = "") -> dict[str, Any]:
        """The facts; raises the process's ValueError. about: shown before what the process does."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        reply = self._next_reply()
        while "doing" in reply:
            with self._console.busy(f"{about}{reply['doing']}"):
                reply = self._next_reply()
        if "error" in reply:
            raise ValueError(reply["error"])
        return reply["facts"]

    def _next_reply(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            tail = self._errors.read()[-2000:].strip()
            why = " (killed, probably for want of memory)" if status == -9 else ""
            raise OSError(f"the planning process ended with status {status}{why}; its last output:\n{tail}")
        return json.loads(line)
