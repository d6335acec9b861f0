"""What is seen of a run, or of a sweep, by its files alone."""

from __future__ import annotations

import json

import pytest
from report.runs import write_run, write_sweep
from rich.console import Console

from jaxmodels import cli
from jaxmodels.commands.watch import watch
from jaxmodels.report import live

pytestmark = pytest.mark.fast


def shown(folder, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        watch(folder, once=True, rich=console)
    return console.export_text()


def unfinished(path, **more):
    run = write_run(path, **more)
    (run / "result.json").unlink()
    environment = json.loads((run / "environment.json").read_text())
    (run / "environment.json").write_text(json.dumps({**environment, "steps": 80, "batch": 8}))
    return run


def test_a_run_that_goes_on_has_its_step_its_speed_and_what_is_left(tmp_path):
    text = shown(unfinished(tmp_path / "run"))
    text = " ".join(text.split())
    assert "running step 40 of 80 0 s left" in text
    assert "8,000 examples per second" in text and "11% of the time waited for input" in text
    assert "rate 0.1000" in text and "test/accuracy" in text


def test_of_a_run_that_has_ended_its_baselines_are_shown_and_nothing_is_waited_for(tmp_path):
    run = write_run(tmp_path / "run")
    text = shown(run)
    assert "complete  step 40 of 40" in text
    assert text.split("test/accuracy")[1].split()[:3] == ["0.9750", "0.9750", "0.9500"]
    assert live.frame(run, 80)[1] and not live.frame(unfinished(tmp_path / "other"), 80)[1]


def test_a_line_that_is_being_written_is_left_for_the_next_look(tmp_path):
    run = unfinished(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "train/lo')
    assert "step 40 of 80" in shown(run)


def test_a_silent_run_says_so(tmp_path, monkeypatch):
    run = unfinished(tmp_path / "run")
    monkeypatch.setattr(live.time, "time", lambda: (run / "metrics.jsonl").stat().st_mtime + 3000)
    assert "no line for 50:00 min" in " ".join(shown(run).split())


@pytest.mark.slow
def test_of_a_sweep_the_members_are_listed_best_first(tmp_path):
    text = shown(write_sweep(tmp_path / "sweep", ended=False))
    assert "18 of 24 members have ended" in text
    assert "running" in text
    lines = shown(write_sweep(tmp_path / "ended")).splitlines()
    assert lines[2].split() == ["member-1-2-2", "40", "0.1299", "0.9070", "complete"]


def test_the_command_watches_once_where_there_is_no_terminal(tmp_path, capsys):
    assert cli.main(["watch", str(write_run(tmp_path / "run"))]) == 0
    assert "step 40" in capsys.readouterr().out
    assert cli.main(["watch", str(tmp_path / "none")]) == 2
    assert "got no such folder; expected a run's folder" in capsys.readouterr().err
