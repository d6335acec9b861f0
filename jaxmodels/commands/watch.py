"""jaxmodels watch: a run, or a sweep, shown in the terminal while it goes on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console as Rich

EVERY = 1.0  # seconds between reads of the files


@dataclass(frozen=True, kw_only=True)
class WatchOptions:
    """How it is shown."""

    once: bool = False
    """Show it as it is now, and end."""


def watch(folder: str | Path, *, once: bool = WatchOptions.once, rich: Rich | None = None) -> None:
    """Shows a run's or a sweep's folder until it has ended, or Ctrl-C; once: as it is now.

    Raises ValueError where there is no run.
    """
    from rich.console import Console as Rich
    from rich.live import Live

    from jaxmodels.report.live import frame

    folder, rich = Path(folder), rich or Rich(highlight=False)
    if once or not rich.is_terminal:
        rich.print(frame(folder, rich.width)[0])
        return
    with Live(console=rich, auto_refresh=False) as live:
        while True:
            shown, over = frame(folder, rich.width)
            live.update(shown, refresh=True)
            if over:
                return
            time.sleep(EVERY)
