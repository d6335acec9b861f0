"""What is seen of a run, or of a sweep, by its files alone."""

from __future__ import annotations

import json

import numpy as np
import pytest
from report.runs import made, made_sweep
from rich.console import Console

from jaxmodels import cli
from jaxmodels.commands import watch

pytestmark = pytest.mark.fast


def shown(folder, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        watch.watch(folder, once=True, rich=console)
    return console.export_text()


def unfinished(path, **more):
    run = made(path, **more)
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
    run = made(tmp_path / "run")
    text = shown(run)
    assert "complete  step 40 of 40" in text
    assert text.split("test/accuracy")[1].split()[:3] == ["0.9750", "0.9750", "0.9500"]
    assert watch.frame(run, 80)[1] and not watch.frame(unfinished(tmp_path / "other"), 80)[1]


def test_a_line_that_is_being_written_is_left_for_the_next_look(tmp_path):
    run = unfinished(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 41, "train/lo')
    assert "step 40 of 80" in shown(run)


def test_a_silent_run_says_so(tmp_path, monkeypatch):
    run = unfinished(tmp_path / "run")
    monkeypatch.setattr(watch.time, "time", lambda: (run / "metrics.jsonl").stat().st_mtime + 3000)
    assert "no line for 50:00 min" in " ".join(shown(run).split())


def test_of_a_sweep_the_members_are_listed_best_first(tmp_path):
    text = shown(made_sweep(tmp_path / "sweep", ended=False))
    assert "18 of 24 members have ended" in text
    assert "running" in text
    lines = shown(made_sweep(tmp_path / "ended")).splitlines()
    assert lines[2].split() == ["member-1-2-2", "40", "0.1299", "0.9070", "complete"]


@pytest.mark.parametrize("width", [20, 80])
def test_a_plot_has_the_width_that_there_is_and_its_lowest_and_highest_value(width):
    lines = watch.plot(np.concatenate([np.linspace(1, 0, 1000), [np.nan]]), width)
    assert len(lines) == watch.HEIGHT and max(map(len, lines)) <= max(width, 18)
    assert lines[0].split()[0].startswith("0.9") or lines[0].split()[0].startswith("1")
    filled = ["".join(line[at] for line in lines).strip() for at in (max(map(len, lines)) // 2, -1)]
    assert len(filled[0]) > 2 and filled[1] == "▁"  # at the end it is low
    assert watch.plot(np.array([1.0]), 80) == []


def test_values_of_several_sizes_are_shown_by_their_logarithms():
    lines = watch.plot(np.geomspace(1.0, 1e-4, 1000), 80)
    names = [line[:10].split()[0] for line in lines if line[:8].strip()]
    assert [float(name) for name in names] == pytest.approx([1.0, 1e-2, 1e-4], rel=0.1)
    middle = max(map(len, lines)) // 2
    assert len("".join(line[middle] for line in lines).strip()) in (4, 5)


def test_the_command_watches_once_where_there_is_no_terminal(tmp_path, capsys):
    assert cli.main(["watch", str(made(tmp_path / "run"))]) == 0
    assert "step 40" in capsys.readouterr().out
    assert cli.main(["watch", str(tmp_path / "none")]) == 2
    assert "is not a run's folder: there is no such folder" in capsys.readouterr().err


def test_values_near_each_other_have_names_that_tell_them_apart():
    for values in (np.linspace(0.12341, 0.12344, 50), np.linspace(1e-9, 1.00001e-9, 50)):
        lines = watch.plot(values, 60)
        named = [word for line in lines for word in line.split()[:1] if word[0].isdigit()]
        assert max(map(len, lines)) <= 60
        assert len({*named}) == len(named) == 3
