"""A picture of what a command leaves on the terminal; needs pyte.

python docs/picture.py docs/run.svg jaxmodels train experiments/gpt_python.py --fresh
"""

from __future__ import annotations

import os
import pty
import re
import select
import sys
from pathlib import Path

import pyte
from rich.console import Console
from rich.text import Text

WIDTH, HEIGHT = 110, 60


def screen_text(screen: pyte.Screen) -> list[Text]:
    """The screen's lines down to the last that is not empty, with colours."""
    lines = []
    for y in range(HEIGHT):
        line = Text()
        for x in range(WIDTH):
            cell = screen.buffer[y][x]
            colour = (
                ""
                if cell.fg == "default"
                else f"#{cell.fg}"
                if len(cell.fg) == 6
                else cell.fg.replace("bright", "bright_")
            )
            line.append(
                cell.data, style=f"{'bold ' if cell.bold else ''}{colour.replace('brown', 'yellow')}".strip()
            )
        line.rstrip()
        lines.append(line)
    while lines and not lines[-1].plain:
        lines.pop()
    return lines


def main() -> None:
    """Runs the command in a terminal of its own and draws its last screen."""
    svg, *command = sys.argv[1:]
    screen = pyte.Screen(WIDTH, HEIGHT)
    stream = pyte.ByteStream(screen)
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(COLUMNS=str(WIDTH), LINES=str(HEIGHT), TERM="xterm-256color")
        os.execvp(command[0], command)
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.2)
        try:
            data = os.read(terminal, 65536) if ready else b""
        except OSError:
            break
        if ready and not data:
            break
        stream.feed(data)
    os.waitpid(pid, 0)
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text(f"$ {' '.join(command)}", style="bold"))
    for line in screen_text(screen):
        console.print(line)
    drawn = console.export_svg(title="jaxmodels")
    Path(svg).write_text(
        re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)
    )  # its fonts would be fetched


if __name__ == "__main__":
    main()
