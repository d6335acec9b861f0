"""A picture of a sweep over one knob, in the frame of docs/picture.py.

python docs/sweep_picture.py docs/sweep.svg runs/sweep-digits_mlp
"""

from __future__ import annotations

import json
import sys
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, RIGHT, TOP, FOOT = 1360, 700, 120, 30, 110, 140
WITHIN = 0.1  # of the best mean; a setting further off is not drawn, but its mean is written
INK, MEAN, MEMBER = "#c5c8c6", "#98c379", "#5a8fd0"


def text(x: float, y: float, said: str, *, anchor: str = "middle", size: int = 20, fill: str = INK) -> str:
    """One line of text."""
    font = f'text-anchor="{anchor}" font-size="{size}" fill="{fill}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {font}>{escape(said)}</text>'


def line(x0: float, y0: float, x1: float, y1: float, colour: str, width: float) -> str:
    """One line."""
    ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line {ends} stroke="{colour}" stroke-width="{width}"/>'


def dot(x: float, y: float, radius: float, colour: str) -> str:
    """One point."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="{colour}"/>'


def draw(table: dict) -> str:
    """Means with their 95% intervals over the knob's values, evenly spaced, and every member as a dot."""
    [knob] = table["settings"][0]["knobs"]
    settings = sorted(table["settings"], key=lambda s: s["knobs"][knob])
    best = next(s for s in settings if s["best"])
    shown = [s for s in settings if abs(s["mean"] - best["mean"]) < WITHIN]
    values = [v for s in shown for v in (*s["values"], s["mean"] - s["interval"], s["mean"] + s["interval"])]
    low, high = min(values), max(values)
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05) if (high - low) / s <= 8)
    bottom = HEIGHT - FOOT

    def y_of(value: float) -> float:
        return TOP + (bottom - TOP) * (high - value) / (high - low)

    drawn = []
    for n in range(round(low / step), round(high / step) + 1):
        if low <= (tick := n * step) <= high + 1e-9:
            drawn += [line(LEFT, y_of(tick), WIDTH - RIGHT, y_of(tick), "#3a3d3b", 1)]
            drawn += [text(LEFT - 14, y_of(tick) + 7, f"{tick:.3f}".rstrip("0").ljust(4, "0"), anchor="end")]
    wide = (WIDTH - LEFT - RIGHT) / len(settings)
    for i, s in enumerate(settings):
        x = LEFT + (i + 0.5) * wide
        drawn += [text(x, bottom + 48, f"{s['knobs'][knob]:g}")]
        drawn += [text(x, bottom + 74, f"{s['mean']:.4f} ± {s['interval']:.4f}", size=14, fill=MEAN)]
        if s not in shown:
            drawn += [text(x, bottom - 6, "↓", size=28, fill=MEAN)]
            continue
        for k, value in enumerate(s["values"]):
            drawn += [dot(x + 12 + (k - (len(s["values"]) - 1) / 2) * 9, y_of(value), 4.5, MEMBER)]
        ends = [y_of(s["mean"] + side * s["interval"]) for side in (1, -1)]
        drawn += [line(x - 44, ends[0], x - 44, ends[1], MEAN, 3), dot(x - 44, y_of(s["mean"]), 7, MEAN)]
        drawn += [line(x - 52, end, x - 36, end, MEAN, 3) for end in ends]
    seeds = len(best["values"])
    drawn += [text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 24, knob)]
    drawn += [dot(LEFT, 72, 7, MEAN), text(LEFT + 16, 79, "mean and 95% interval", anchor="start")]
    drawn += [
        dot(LEFT + 290, 72, 4.5, MEMBER),
        text(LEFT + 304, 79, f"each of {seeds} seeds", anchor="start"),
    ]
    lights = "".join(dot(26 + 22 * i, 27, 7, c) for i, c in enumerate(("#ff5f57", "#febc2e", "#28c840")))
    size = f'width="{WIDTH - 2}" height="{HEIGHT - 2}"'
    frame = f'<rect x="1" y="1" {size} rx="8" fill="#292929" stroke="#6b6b6b"/>'
    fonts = 'xmlns="http://www.w3.org/2000/svg" font-family="Fira Code, monospace"'
    title = text(WIDTH / 2, 33, f"{table['metric']} by {knob}", size=18)
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" {fonts}>',
            *(frame, lights, title, *drawn),
            "</svg>\n",
        ]
    )


def main() -> None:
    """Draws it."""
    svg, folder = sys.argv[1:]
    Path(svg).write_text(draw(json.loads((Path(folder) / "result.json").read_text())))


if __name__ == "__main__":
    main()
