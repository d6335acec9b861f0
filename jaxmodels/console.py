"""What a person sees of a command: a progress bar on a terminal, elsewhere a line from time to time.

The module is imported when the command line starts, so rich is imported only where something is printed.
"""

from __future__ import annotations

import contextlib
import math
import re
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console as Rich
    from rich.progress import Progress
    from rich.text import Text

EVERY = 10.0  # seconds between progress lines where there is no terminal

# Control characters except newline and tab, DEL, the C1 controls, and characters that change the direction of
# writing.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def shown(text: str) -> str:
    """The text with every character that a terminal would obey written as its escape: \\x1b for ESC.

    For text that this program did not write, such as a tensor's name or a model's output: an escape sequence
    could overwrite what was printed before, rename the window or fill the clipboard, and direction marks make
    text read as another.
    """
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


class _Stream:
    """Standard output or error as it is when written to; a failed write is dropped and raises nothing.

    A disk may be full or a pipe closed: the run, and the thread that prints, go on.
    """

    def __init__(self, name: str):
        self._name = name

    def _stream(self) -> Any:
        stream = getattr(sys, self._name)
        return getattr(stream, "rich_proxied_file", stream)  # while a progress bar is shown

    def write(self, text: str) -> int:
        # ValueError: the stream is closed. AttributeError: there is no stream.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            self._stream().flush()

    def __getattr__(self, name: str) -> Any:  # encoding, isatty, fileno
        return getattr(self._stream(), name)


def rich(*, stderr: bool) -> Rich:
    """A rich console that never fails because something cannot be printed."""
    from rich.console import Console as Rich

    stream: Any = _Stream("stderr" if stderr else "stdout")
    return Rich(file=stream, highlight=False, soft_wrap=True)


def _text(text: str, style: str = "") -> Text:
    """The text in a form that rich prints as it is, never as markup."""
    from rich.text import Text

    return Text(shown(text), style=style)


class Console:
    """Prints to stdout, or to stderr where stdout carries JSON.

    quiet: only warnings are printed. muted: nothing is printed. json: stdout carries JSON.
    """

    def __init__(self, *, quiet: bool = False, json: bool = False, muted: bool = False):
        self._rich = rich(stderr=json)
        self._errors = rich(stderr=True)
        self.quiet, self.muted, self.json = quiet or muted, muted, json
        self._progress: Progress | None = None
        self._bar: Any = None
        self._steps = 0
        self._shown = 0.0

    def say(self, text: str = "", style: str | None = None) -> None:
        """One line; never read as markup."""
        if not self.quiet:
            self._rich.print(_text(text, style or ""))

    def warn(self, text: str) -> None:
        """One line that nobody should miss."""
        if self.muted:  # only the first of several processes prints
            return
        console = self._progress.console if self._progress else self._errors
        console.print(_text(f"warning: {text}", "yellow"))

    @contextlib.contextmanager
    def busy(self, what: str, after: float = 2.0) -> Iterator[None]:
        """Says what is going on once it has taken `after` seconds, and at the end how long it took."""
        begun, over = time.perf_counter(), threading.Event()

        def remind() -> None:
            if not over.wait(after):
                self.say(f"{what} …", "dim")

        thread = threading.Thread(target=remind, daemon=True)
        with contextlib.suppress(RuntimeError):  # the system gives no more threads: no reminder then
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
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

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
        """Shows the step, the loss, the speed and the time left.

        A terminal is redrawn at most five times a second. Elsewhere a line is printed where it is due, and
        where the last one is EVERY seconds old.
        """
        now = time.perf_counter()
        if self._progress:
            shows = now - self._shown >= 0.2 or done == self._steps
        else:
            shows = due or now - self._shown >= EVERY
        if self.quiet or not shows:
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
        """Rows of text under headings; left: every column is aligned left, otherwise only the first."""
        if self.quiet:
            return
        from rich.table import Table

        table = Table(
            title=_text(title) if title else None,
            title_justify="left",
            title_style="bold",
            box=None,
            pad_edge=False,
            padding=(0, 3, 0, 0),
        )
        for i, column in enumerate(columns):
            justify: Any = "left" if left or i == 0 else "right"
            table.add_column(_text(column), justify=justify, header_style="dim")
        for row in rows:
            table.add_row(*(_text(cell) for cell in row))
        self._rich.print(table)


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
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
    """Numbers of one axis or column, with as many digits as tell them apart."""
    texts: list[str] = []
    for digits in range(4, 18):
        texts = [f"{x:.{digits}g}" for x in values]
        if len({*texts}) == len({*values}):
            break
    return texts
