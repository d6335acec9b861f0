"""Facts and figures as one HTML file. Whatever comes from a run passes through `escaped` or `embedded`."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import importlib.util
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jaxmodels.report.charts import Figure

STYLE, SCRIPT = (Path(__file__).with_name(name).read_text("utf-8") for name in ("page.css", "page.js"))


def escaped(x: Any) -> str:
    """Text inside HTML, or inside a quoted attribute."""
    return html.escape(str(x), quote=True)


def embedded(x: Any) -> str:
    """JSON inside a script element: no character of it can end the element or begin a comment."""
    text = json.dumps(x, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def library() -> bytes:
    """plotly's JavaScript, as its Python package brings it."""
    found = importlib.util.find_spec("plotly")
    file = Path(found.origin).parent / "package_data" / "plotly.min.js" if found and found.origin else None
    if file is None or not file.is_file():
        raise ImportError("a report's charts need plotly; pip install 'jaxmodels[report]'")
    return file.read_bytes()


@cache
def _packed(script: bytes) -> str:
    return base64.b64encode(gzip.compress(script, 9, mtime=0)).decode()


class Page:
    """A page being written: HTML, and the figures that its script draws."""

    def __init__(self, title: str):
        self.title = title
        self.figures: list[Figure] = []
        self._parts: list[str] = []

    def add(self, *parts: str) -> None:
        """Adds HTML."""
        self._parts += parts

    def section(self, title: str, *parts: str) -> None:
        """Adds a heading and what is under it, where there is anything."""
        if any(parts):
            self.add(f"<h2>{escaped(title)}</h2>", *parts)

    def charts(self, figures: Sequence[Figure]) -> str:
        """A grid of figures."""
        return f'<div class="charts">{"".join(map(self._chart, figures))}</div>' if figures else ""

    def _chart(self, figure: Figure) -> str:
        i = len(self.figures)
        self.figures.append(figure)
        legend = "".join(
            f"<span>{dot(at, name)} <b>{escaped(value)}</b></span>" for at, name, value in figure["legend"]
        )
        if any(name for _, name, _ in figure["legend"]):
            legend = f'<div class="legend">{legend}</div>'
        note = f"<p>{escaped(figure['note'])}</p>" if figure["note"] else ""
        caption = f"<figcaption><strong>{escaped(figure['title'])}</strong>{legend}{note}</figcaption>"
        plot = f'<div class="plot" id="f{i}" role="img" aria-label="{escaped(figure["title"])}"></div>'
        return f'<figure class="{figure.get("kind", "chart")}">{caption}{plot}</figure>'

    def html(self) -> str:
        """The whole file. Its policy lets the browser load nothing, and run these two scripts alone."""
        plotly = library()
        digests = [
            base64.b64encode(hashlib.sha256(script).digest()).decode() for script in (SCRIPT.encode(), plotly)
        ]
        scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
        policy = f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; media-src data:"
        return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="jaxmodels">
<title>{escaped(self.title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
<main>
{"".join(part + chr(10) for part in self._parts)}</main>
<script type="application/json" id="figures">{embedded(self.figures)}</script>
<script type="text/plain" id="library">{_packed(plotly)}</script>
<script>{SCRIPT}</script>
</body>
</html>
"""


def dot(i: int, name: str) -> str:
    """A name beside its colour; nothing where there is no name."""
    return name and f'<span class="dot" style="--dot: var(--c{i % 8})">{escaped(name)}</span>'


def table(head: Sequence[str], rows: Sequence[Sequence[Any]], align: str = "") -> str:
    """align: l or r for each column; by default the first is to the left."""
    align = align or "l" + "r" * (len(head) - 1)
    mark = ['<{0} class="r">{1}</{0}>' if a == "r" else "<{0}>{1}</{0}>" for a in align]

    def line(tag, cells):
        return "".join(m.format(tag, escaped(c)) for m, c in zip(mark, cells, strict=True))

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{line("th", head)}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Sequence[tuple[str, str]], kind: str = "list") -> str:
    """Names with values, of which empty ones are left out."""
    pair = "<dt>{}</dt><dd>{}</dd>" if kind == "list" else "<div><dt>{}</dt><dd>{}</dd></div>"
    return f'<dl class="{kind}">{"".join(pair.format(escaped(k), escaped(v)) for k, v in pairs if v)}</dl>'


def picture(data: bytes, about: str) -> str:
    """A PNG file, inside the page."""
    return f'<img alt="{escaped(about)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def sound(data: bytes, about: str) -> str:
    """A WAV file, inside the page, to be played."""
    source = f"data:audio/wav;base64,{base64.b64encode(data).decode()}"
    return f'<audio controls preload="metadata" aria-label="{escaped(about)}" src="{source}"></audio>'


def folded(summary: str, inner: str, *, shown: bool) -> str:
    """What can be folded away."""
    return f"<details{' open' if shown else ''}><summary>{escaped(summary)}</summary>{inner}</details>"


def choices(axes: Sequence[tuple[str, str]], logarithmic: bool) -> str:
    """Which x axis the curves have, and whether y is logarithmic."""
    radios = "".join(
        f'<label><input type="radio" name="x" value="{value}"{" checked" if i == 0 else ""}>{escaped(name)}</label>'
        for i, (value, name) in enumerate(axes)
    )
    log = '<label><input type="checkbox" id="log">logarithmic</label>' if logarithmic else ""
    return f'<div class="bar choice"><div>{radios}</div><div>{log}</div></div>'
