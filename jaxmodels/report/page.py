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
    """plotly's JavaScript, from its Python package."""
    spec = importlib.util.find_spec("plotly")
    file = Path(spec.origin).parent / "package_data" / "plotly.min.js" if spec and spec.origin else None
    if file is None or not file.is_file():
        raise ImportError("a report's charts need plotly; pip install 'jaxmodels[report]'")
    return file.read_bytes()


@cache
def _compressed(script: bytes) -> str:
    return base64.b64encode(gzip.compress(script, 9, mtime=0)).decode()


class Page:
    """An HTML page that is being written, and the figures that its script draws."""

    def __init__(self, title: str):
        self.title = title
        self.figures: list[Figure] = []
        self._parts: list[str] = []

    def add(self, *parts: str) -> None:
        """Adds HTML."""
        self._parts += parts

    def section(self, title: str, *parts: str) -> None:
        """Adds a heading and the parts under it; nothing where all parts are empty."""
        if any(parts):
            self.add(f"<h2>{escaped(title)}</h2>", *parts)

    def charts(self, figures: Sequence[Figure]) -> str:
        """A grid of figures."""
        return f'<div class="charts">{"".join(map(self._chart, figures))}</div>' if figures else ""

    def _chart(self, figure: Figure) -> str:
        number = len(self.figures)
        self.figures.append(figure)
        legend = "".join(
            f"<span>{dot(i, name)} <b>{escaped(value)}</b></span>" for i, name, value in figure["legend"]
        )
        if any(name for _, name, _ in figure["legend"]):
            legend = f'<div class="legend">{legend}</div>'
        note = f"<p>{escaped(figure['note'])}</p>" if figure["note"] else ""
        caption = f"<figcaption><strong>{escaped(figure['title'])}</strong>{legend}{note}</figcaption>"
        plot = f'<div class="plot" id="f{number}" role="img" aria-label="{escaped(figure["title"])}"></div>'
        return f'<figure class="{figure.get("kind", "chart")}">{caption}{plot}</figure>'

    def html(self) -> str:
        """The complete file. Its policy lets the browser load nothing, and run these two scripts alone."""
        plotly = library()
        digests = [
            base64.b64encode(hashlib.sha256(script).digest()).decode() for script in (SCRIPT.encode(), plotly)
        ]
        scripts = " ".join(f"'sha256-{digest}'" for digest in digests)
        policy = (
            f"default-src 'none'; script-src {scripts}; style-src 'unsafe-inline'; img-src data: blob:; "
            "media-src data:"
        )
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
<script type="text/plain" id="library">{_compressed(plotly)}</script>
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
    formats = ['<{0} class="r">{1}</{0}>' if a == "r" else "<{0}>{1}</{0}>" for a in align]

    def line(tag, cells):
        return "".join(f.format(tag, escaped(cell)) for f, cell in zip(formats, cells, strict=True))

    header = f"<thead><tr>{line('th', head)}</tr></thead>"
    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="scroll"><table>{header}<tbody>{body}</tbody></table></div>'


def facts(pairs: Sequence[tuple[str, str]], kind: str = "list") -> str:
    """Names with their values; pairs with an empty value are left out."""
    pair = "<dt>{}</dt><dd>{}</dd>" if kind == "list" else "<div><dt>{}</dt><dd>{}</dd></div>"
    shown = [pair.format(escaped(name), escaped(value)) for name, value in pairs if value]
    return f'<dl class="{kind}">{"".join(shown)}</dl>'


def image(data: bytes, about: str) -> str:
    """A PNG file, inside the page."""
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return f'<img alt="{escaped(about)}" src="{source}">'


def sound(data: bytes, about: str) -> str:
    """A WAV file, inside the page, to be played."""
    source = f"data:audio/wav;base64,{base64.b64encode(data).decode()}"
    return f'<audio controls preload="metadata" aria-label="{escaped(about)}" src="{source}"></audio>'


def folded(summary: str, inner: str, *, shown: bool) -> str:
    """HTML that a reader can fold away; shown: whether it is unfolded at first."""
    return f"<details{' open' if shown else ''}><summary>{escaped(summary)}</summary>{inner}</details>"


def choices(axes: Sequence[tuple[str, str]], logarithmic: bool) -> str:
    """Controls of the curves' x axis, and of a logarithmic y axis."""
    radios = []
    for i, (value, name) in enumerate(axes):
        radio = f'<input type="radio" name="x" value="{value}"{"" if i else " checked"}>'
        radios.append(f"<label>{radio}{escaped(name)}</label>")
    log = '<label><input type="checkbox" id="log">logarithmic</label>' if logarithmic else ""
    return f'<div class="bar choice"><div>{"".join(radios)}</div><div>{log}</div></div>'
