"""What a person sees of a run: a progress bar on a terminal, a line now and then elsewhere, nothing when asked for quiet."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console as Rich
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from jaxmodels.terminal import shown

EVERY = 10.0  # seconds between progress lines where there is no terminal


class _Stream:
    """The standard output or error as it is at the moment, where what cannot be written is lost and ends nothing.

    A disk may be full, a pipe closed: a run, and the thread that has something to say, go on.
    """

    def __init__(self, name: str):
        self._name = name

    def _stream(self) -> Any:
        stream = getattr(sys, self._name)
        return getattr(stream, "rich_proxied_file", stream)  # while a progress bar is shown

    def write(self, text: str) -> int:
        with contextlib.suppress(
            OSError, ValueError, AttributeError
        ):  # ValueError: of a closed one; there may be none
            self._stream().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream().flush()

    def __getattr__(self, name: str) -> Any:  # encoding, isatty, fileno
        return getattr(self._stream(), name)


def rich(*, stderr: bool) -> Rich:
    """A console of rich's that never fails for what cannot be printed."""
    stream: Any = _Stream("stderr" if stderr else "stdout")
    return Rich(file=stream, highlight=False, soft_wrap=True)


class Console:
    """Prints to stdout, or to stderr where stdout carries JSON; quiet prints warnings alone, and muted nothing at all."""

    def __init__(self, *, quiet: bool = False, json: bool = False, muted: bool = False):
        self._rich = rich(stderr=json)
        self._errors = rich(stderr=True)
        self.quiet, self.muted = quiet or muted, muted
        self._progress: Progress | None = None
        self._bar: Any = None
        self._steps = 0
        self._shown = 0.0

    def say(self, text: str = "", style: str | None = None) -> None:
        """One line; never read as markup."""
        if not self.quiet:
            self._rich.print(Text(shown(text), style=style or ""))

    def warn(self, text: str) -> None:
        """One line that nobody should miss."""
        if self.muted:  # of several processes the first one speaks
            return
        (self._progress.console if self._progress else self._errors).print(
            Text(shown(f"warning: {text}"), style="yellow")
        )

    @contextlib.contextmanager
    def busy(self, what: str, after: float = 2.0) -> Iterator[None]:
        """Says what takes so long, once it has taken `after` seconds, and how long it took at the end."""
        begun, over = time.perf_counter(), threading.Event()

        def remind() -> None:
            if not over.wait(after):
                self.say(f"{what} …", "dim")

        thread = threading.Thread(target=remind, daemon=True)
        with contextlib.suppress(RuntimeError):  # there can be no more threads: then nobody is reminded
            thread.start()
        try:
            yield
        finally:
            over.set()
            if thread.ident is not None:
                thread.join()
            took = time.perf_counter() - begun
            if took >= after:
                self.say(f"{what} took {took:.1f} s", "dim")

    @contextlib.contextmanager
    def progress(self, done: int, steps: int) -> Iterator[None]:
        """A bar over the steps of a run."""
        self._steps, self._shown = steps, time.perf_counter()
        if self.quiet or not self._rich.is_terminal:
            yield
            return
        columns = (BarColumn(None), MofNCompleteColumn(), TextColumn("{task.fields[text]}"))
        with Progress(*columns, console=self._rich, auto_refresh=False, expand=True) as self._progress:
            self._bar = self._progress.add_task("", total=steps, completed=done, text="")
            try:
                yield
            finally:
                self._progress.refresh()
        self._progress = None

    def update(
        self, done: int, values: Mapping[str, float], examples_per_s: float, left: float, *, due: bool = False
    ) -> None:
        """How far, how well, how fast, how long still; on a terminal redrawn a few times a second at most, elsewhere a line
        where it is due, and where the last one is long ago."""
        now = time.perf_counter()
        if self._progress:
            shown = now - self._shown >= 0.2 or done == self._steps
        else:
            shown = due or now - self._shown >= EVERY
        if self.quiet or not shown:
            return
        self._shown = now
        text = f"loss {values.get('loss', float('nan')):.4g}"
        if math.isfinite(examples_per_s):
            text += f"  {examples_per_s:,.0f} examples/s  {duration(left)} left"
        if self._progress:
            self._progress.update(self._bar, completed=done, text=text, refresh=True)
        else:
            self.say(f"step {done:,}/{self._steps:,}  {text}")

    def table(
        self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: bool = False
    ) -> None:
        """Rows of text under headings; all but the first column to the right, or none."""
        if self.quiet:
            return
        table = Table(
            title=Text(shown(title)) if title else None,
            title_justify="left",
            title_style="bold",
            box=None,
            pad_edge=False,
            padding=(0, 3, 0, 0),
        )
        for i, column in enumerate(columns):
            table.add_column(
                Text(shown(column)), justify="left" if left or i == 0 else "right", header_style="dim"
            )
        for row in rows:
            table.add_row(*(Text(shown(cell)) for cell in row))
        self._rich.print(table)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds != seconds or seconds == float("inf"):
        return "?"
    seconds = round(seconds)
    if seconds < 100:
        return f"{seconds} s"
    if seconds < 6000:
        return f"{seconds // 60}:{seconds % 60:02d} min"
    return f"{seconds // 3600}:{seconds // 60 % 60:02d} h"


def number(x: float) -> str:
    """A metric with as many digits as help."""
    if x != x:
        return "nan"
    if x and (abs(x) < 1e-3 or abs(x) >= 1e6):
        return f"{x:.3e}"
    return f"{x:,.4f}" if abs(x) < 100 else f"{x:,.1f}"


def told_apart(values: Sequence[float]) -> list[str]:
    """Numbers beside each other, as those of an axis, with as many digits as tell them apart."""
    texts: list[str] = []
    for digits in range(4, 18):
        texts = [f"{x:.{digits}g}" for x in values]
        if len({*texts}) == len({*values}):
            break
    return texts


def fail(text: str) -> None:
    """An error as one message."""
    rich(stderr=True).print(Text.assemble(("error: ", "bold red"), shown(text)))
