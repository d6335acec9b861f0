"""The page of a sweep: what it says, and that a browser draws all of it."""

from __future__ import annotations

import json
import math

import pytest
from report.browser import Browser
from report.runs import HOSTILE, write_run, write_sweep
from report.test_browser import DRAWN

from jaxmodels import cli
from jaxmodels.commands.report import report
from jaxmodels.console import told_apart
from jaxmodels.report.read_sweep import importance, read_sweep

pytest.importorskip("plotly", reason="plotly is absent; pip install 'jaxmodels[report]'")
fast = pytest.mark.fast


@fast
def test_settings_are_those_of_the_members_with_what_may_be_said_of_them(tmp_path):
    swept = read_sweep(write_sweep(tmp_path / "sweep"))
    assert (len(swept.members), len(swept.settings), swept.knobs, swept.seed) == (
        24,
        8,
        ["kind", "lr"],
        "seed",
    )
    assert swept.best is not None and swept.best.knobs == {"kind": HOSTILE, "lr": 0.1}
    assert [s.diverged for s in swept.settings] == [0, 0, 0, 1, 0, 0, 0, 0]
    assert len(swept.compared) == 7 and not swept.run.notes


def test_of_a_sweep_that_goes_on_there_is_what_has_ended(tmp_path):
    swept = read_sweep(write_sweep(tmp_path / "sweep", ended=False))
    assert (len(swept.settings), swept.metric, swept.goal) == (6, "test/accuracy", "max")
    assert swept.run.notes == ["6 of 24 members have not ended yet."]
    assert report(tmp_path / "sweep").is_file()


@fast
def test_a_knob_matters_as_much_as_it_explains(tmp_path):
    swept = read_sweep(write_sweep(tmp_path / "sweep"))
    rate, kind = importance(swept, "lr"), importance(swept, "kind")
    assert rate > 0.95 and kind == 0.0
    drawn = [
        s._replace(knobs={"lr": 0.1 + 0.01 * i, "kind": "a"}, mean=math.sin(0.4 * i))
        for i, s in enumerate(swept.settings)
    ]
    swept.settings = drawn  # each of a rate of its own
    assert 0.5 < importance(swept, "lr") < 1 and importance(swept, "kind") is None


@fast
def test_what_cannot_be_is_said_in_one_line(tmp_path, capsys):
    sweep, run = write_sweep(tmp_path / "sweep"), write_run(tmp_path / "run")
    assert cli.main(["report", str(sweep), str(run)]) == 2
    assert "expected it alone, as a sweep has a page of its own" in capsys.readouterr().err
    (tmp_path / "new" / "members").mkdir(parents=True)
    (tmp_path / "new" / "knobs.json").write_text(json.dumps({"knobs": {}}))
    assert cli.main(["report", str(tmp_path / "new")]) == 2
    assert "a sweep without members that have begun" in capsys.readouterr().err


@fast
def test_a_sweep_of_which_every_member_diverged_has_a_page(tmp_path):
    sweep = write_sweep(tmp_path / "sweep")
    for file in (sweep / "members").glob("*/result.json"):
        file.write_text(json.dumps({"exit": "NotFinite: of step 3", "metrics": {"test/accuracy": 0.5}}))
    assert "No member has a finite result" in report(sweep).read_text()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_a_browser_draws_every_figure_and_asks_for_nothing(tmp_path, width, scheme):
    path = report(write_sweep(tmp_path / "sweep"))
    browser = Browser()
    try:
        browser.open(path, width=width, scheme=scheme)
        plots = browser.js(DRAWN.replace(".heatmaplayer image", ".heatmaplayer image, .bars .point"))
        assert (
            len(plots) == browser.js("figures.length") == 7
        )  # two knobs, importance, best so far, side by side, two curves
        assert all(plot["width"] > 200 and plot["marks"] for plot in plots), plots
        assert not browser.troubles() and not browser.requests()
        assert browser.js("document.documentElement.scrollWidth <= innerWidth"), (
            "the page is wider than the screen"
        )
        assert browser.js("document.querySelectorAll('main script, .plot script, .plot b').length") == 0
        cells = browser.js("[...document.querySelectorAll('td')].map((cell) => cell.textContent)")
        assert HOSTILE in cells
    finally:
        browser.close()


def test_ticks_of_an_axis_can_be_told_apart():
    for values in ([0.12345, 0.12346], [1e-12, 1.00001e-12], [1, 2, 3]):
        assert len({*told_apart(values)}) == len(values)
    assert told_apart([1e-4, 3e-4]) == ["0.0001", "0.0003"]
