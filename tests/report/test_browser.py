"""Reports in a real browser: that they draw, quickly, on every screen, and ask nobody for anything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report.browser import Browser
from report.runs import HOSTILE, write_run

from jaxmodels.commands.report import report
from jaxmodels.console import Console
from jaxmodels.data.formats.audio import wav
from jaxmodels.report.classifier import classifier_report
from jaxmodels.report.read_run import read_run
from jaxmodels.report.run_page import run_page
from jaxmodels.runs.png import encode_png

pytest.importorskip("plotly", reason="plotly is absent; pip install 'jaxmodels[report]'")

MARKS = ".scatterlayer .js-line, .scatterlayer .point, .heatmaplayer image, .hm"
DRAWN = f"""[...document.querySelectorAll(".plot")].map((plot) => ({{
  width: plot.getBoundingClientRect().width,
  marks: plot.querySelectorAll("{MARKS}").length,
  colours: [...plot.querySelectorAll(".js-line")].map((line) => getComputedStyle(line).stroke),
}}))"""


@pytest.fixture(scope="module")
def browser():
    browser = Browser()
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with every kind of figure, of a run whose names are hostile."""
    folder = tmp_path_factory.mktemp("browser")
    run = write_run(folder / "run", name=HOSTILE)
    (run / "sample.txt").write_text(HOSTILE)
    random = np.random.default_rng(0)
    probability = random.dirichlet(np.ones(3), 200)
    names = ["<script>alert(1)</script>", "<b>b</b>", HOSTILE]
    shown = {
        0: wav(random.uniform(-1, 1, 4_000), 8_000),
        1: HOSTILE,
        2: encode_png(np.zeros((4, 4, 3), np.uint8)),
    }
    seen = classifier_report(
        probability, random.integers(0, 3, 200), names, {"worst": [0, 1], "best": [2]}, shown
    )
    path = folder / "page.html"
    path.write_text(run_page(read_run(run), None, {"test": seen}, 40).html(), "utf-8")
    return path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_every_figure_is_drawn_without_a_complaint_or_a_request(browser, page, width, scheme):
    browser.open(page, width=width, scheme=scheme)
    plots = browser.js(DRAWN)
    assert len(plots) == browser.js("figures.length") == 9
    assert all(plot["width"] > 200 and plot["marks"] for plot in plots), plots
    assert not browser.troubles()
    assert not browser.requests()
    assert browser.js("document.documentElement.scrollWidth <= innerWidth"), (
        "the page is wider than the screen"
    )


def test_nothing_of_a_run_becomes_an_element(browser, page):
    browser.open(page)
    assert browser.js("document.querySelectorAll('main script, .plot script, .plot b').length") == 0
    assert browser.js("document.querySelectorAll('pre')[0].textContent") == HOSTILE
    shown = browser.js("[...document.querySelectorAll('.xtick text')].map((t) => t.textContent)")
    assert "<script>alert(1)</script>" in shown and "<b>b</b>" in shown


def test_an_example_is_played_read_or_seen(browser, page):
    browser.open(page)
    audio = "document.querySelector('audio')"
    browser.js(f"new Promise((loaded) => {{ {audio}.onloadedmetadata = () => loaded(1); {audio}.load(); }})")
    assert browser.js(f"{audio}.duration") == pytest.approx(0.5)
    assert browser.js("document.querySelector('blockquote').textContent") == HOSTILE
    assert browser.js("document.querySelector('.cards img').naturalWidth") == 4
    assert not browser.troubles() and not browser.requests()


def test_charts_take_the_colours_of_the_theme_and_are_printed_light(browser, page):
    browser.open(page, scheme="light")
    light = browser.js(DRAWN)[0]["colours"]
    browser.open(page, scheme="dark")
    dark = browser.js(DRAWN)[0]["colours"]
    assert light != dark
    browser.js("dispatchEvent(new Event('beforeprint'))")
    assert browser.js(DRAWN)[0]["colours"] == light
    browser.js("dispatchEvent(new Event('afterprint'))")
    assert browser.js(DRAWN)[0]["colours"] == dark
    assert not browser.troubles()


def test_the_x_axis_can_be_chosen(browser, page):
    browser.open(page)
    end = "document.getElementById('f0').layout.xaxis.range[1]"
    assert browser.js(end) == pytest.approx(40 * 1.01)
    browser.js("document.querySelector('input[value=seconds]').click()")
    assert browser.js(end) == pytest.approx(0.04 * 1.01)
    browser.js("document.getElementById('log').click()")
    assert browser.js("document.getElementById('f0').layout.yaxis.type") == "log"
    assert not browser.troubles()


def test_an_injected_script_is_not_run(browser, page, tmp_path):
    """The policy of the page stops what the escaping would have let through."""
    bad = tmp_path / "bad.html"
    bad.write_text(
        page.read_text().replace(
            "</main>", "<script>window.evil = 1</script><img src=x onerror='evil = 1'></main>"
        )
    )
    browser.open(bad)
    assert browser.js("window.evil") is None
    assert browser.troubles()


def test_a_hundred_thousand_steps_open_within_two_seconds_and_stay_under_five_megabytes(browser, tmp_path):
    path = report(write_run(tmp_path / "run", steps=100_000), model="off", console=Console(quiet=True))
    assert path.stat().st_size < 5e6
    assert min(browser.open(path) for _ in range(3)) < 2000
    points = browser.js("Math.max(...figures.flatMap((f) => f.data.map((trace) => trace.y.length)))")
    assert points < 3000
    lowest = min(
        json.loads(line).get("train/loss", 9)
        for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    )
    assert browser.js("Math.min(...figures[0].data[0].y)") == pytest.approx(lowest, rel=1e-5)
    assert not browser.troubles()
