"""A run's folder from elsewhere: no link is followed, no device opened, and no file is a traceback."""

from __future__ import annotations

import contextlib
import json
import os
import time

import numpy as np
import pytest
from fuzz import mutations
from report.runs import write_run, write_sweep
from rich.console import Console as Rich

from jaxmodels.commands.launch import keep_logs
from jaxmodels.commands.list import list_experiments
from jaxmodels.commands.report import report
from jaxmodels.commands.watch import watch
from jaxmodels.console import Console
from jaxmodels.launch.supervisor import prepare
from jaxmodels.report.read_run import read_run
from jaxmodels.runs import checksummed_json
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.files import BadFile
from jaxmodels.runs.folder import Folder
from jaxmodels.runs.knobs import read_knobs
from jaxmodels.runs.metrics_file import truncate
from jaxmodels.sweeps.members import loop_of, result_of
from jaxmodels.sweeps.worker import held

pytestmark = pytest.mark.fast
pytest.importorskip("plotly", reason="plotly is absent; pip install 'jaxmodels[report]'")

SECRET = "password of somebody else"
FILES = (
    "knobs.json",
    "environment.json",
    "result.json",
    "metrics.jsonl",
    "experiment.py",
    "sample.txt",
    "pictures/x1.png",
)
FILES += ("profile/operations.json",)


def full(path):
    """A run with everything that a reader looks for."""
    run = write_run(path)
    (run / "sample.txt").write_text("Once upon a time")
    for name, content in (
        ("pictures/x1.png", b"\x89PNG"),
        ("profile/operations.json", b'{"operations": []}'),
    ):
        (run / name).parent.mkdir()
        (run / name).write_bytes(content)
    return run


def show(run, capsys):
    """All that the readers of runs say of it."""
    page = report([run], model="off").read_text("utf-8")
    watch(run, once=True, rich=Rich(width=80))
    listed = list_experiments(run.parent, runs=run.parent)
    return page + capsys.readouterr().out + str(listed)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ["link", "linked folder", "pipe", "device", "endless"])
def test_nothing_outside_of_the_folder_is_shown_and_nothing_special_is_opened(tmp_path, capsys, name, kind):
    run = full(tmp_path / "run")
    path, outside = run / name, tmp_path / "outside"
    outside.mkdir()
    (outside / path.name).write_text(
        json.dumps({"exit": SECRET, "knobs": {"x": SECRET}, "step": 1}) + SECRET * 3
    )
    if kind == "linked folder":
        if "/" not in name:
            return
        path.unlink()
        path.parent.rmdir()
        path.parent.symlink_to(outside)
    elif (name, kind) == ("metrics.jsonl", "endless"):
        return  # see below
    else:
        path.unlink()
        if kind == "link":
            path.symlink_to(outside / path.name)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            with path.open("wb") as file:
                file.truncate(1 << 40)
    begun = time.monotonic()
    assert SECRET not in show(run, capsys)
    assert time.monotonic() - begun < 10


@pytest.mark.slow
def test_a_log_of_any_length_is_read_from_its_end_and_a_long_line_left_out(tmp_path):
    run = write_run(tmp_path / "run")
    log = (run / "metrics.jsonl").read_bytes()
    with (run / "metrics.jsonl").open("wb") as file:
        file.truncate(1 << 36)
        file.seek(1 << 36)
        file.write(b"\n" + b"[" * (2 << 20) + b"\n" + log)
    found = read_run(run)
    assert found.curves["train/loss"].step.tolist() == list(range(1, 41))
    assert any("longer than 256 MiB" in note for note in found.notes)


def test_nothing_is_written_through_a_planted_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text(SECRET)
    run = write_run(tmp_path / "run")
    for name in (".report.html.new", "report.html", ".lock", "environment.json", "result.json"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(victim)
    report([run], model="off")
    with pytest.raises(BadFile, match=r"\.lock: got a link"):
        Folder(run, keep=1).open(RunDefinition("", {}, {}))
    folder = Folder(run, keep=1)
    folder.write_environment()
    folder.write_result({"exit": "complete"})
    folder.close()
    assert victim.read_text() == SECRET
    assert not (run / "report.html").is_symlink()


def test_no_folder_of_a_run_is_written_through_a_link(tmp_path):
    run, outside = write_run(tmp_path / "run"), tmp_path / "outside"
    outside.mkdir()
    for name in ("pictures", "processes", ".beats"):
        (run / name).symlink_to(outside)
    with pytest.raises(BadFile, match="pictures: got a link"):
        Folder(run, keep=1).write_picture("x", np.zeros((2, 2, 1), np.uint8))
    logs, console = tmp_path / "logs", Console(quiet=True, muted=True)
    logs.mkdir()
    (logs / "1.log").write_text("said")
    keep_logs(logs, run, console)
    prepare(run, 2)
    assert os.listdir(outside) == []
    (run / "processes").unlink()
    logs.mkdir()
    (logs / "1.log").write_text("said")
    keep_logs(logs, run, console)
    assert (run / "processes" / "1.log").read_text() == "said"


def test_a_log_and_a_lock_that_are_links_are_refused(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text(SECRET)
    (tmp_path / ".lock").symlink_to(victim)
    (tmp_path / "metrics.jsonl").symlink_to(victim)
    with pytest.raises(BadFile, match="got a link"), held(tmp_path):
        pass
    with pytest.raises(BadFile, match="got a link"):
        from jaxmodels.runs.metrics_file import append

        append(tmp_path / "metrics.jsonl", b"x")
    assert victim.read_text() == SECRET
    with pytest.raises(BadFile, match="got a link"):
        truncate(tmp_path / "metrics.jsonl", 3)
    assert victim.read_text() == SECRET


def readers(run):
    yield lambda: report([run], model="off")
    yield lambda: watch(run, once=True, rich=Rich(width=80, quiet=True))
    yield lambda: list_experiments(run.parent, runs=run.parent)
    yield lambda: read_knobs(run)


PROFILE = {"first": 3, "last": 9, "operations": [{"module": "blocks", "operation": "dot", "pass": "forward"}]}
PROFILE["operations"][0] |= {"ms": 1.5, "share": 0.5, "times": 3}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FILES[:4], "profile/operations.json"])
def test_damaged_files_of_a_run_end_in_a_page_or_in_one_message(tmp_path, monkeypatch, name):
    monkeypatch.setattr("jaxmodels.report.page.library", lambda: b"")
    run = write_run(tmp_path / "run", steps=8)
    (run / "profile").mkdir()
    (run / "profile" / "operations.json").write_text(json.dumps(PROFILE))
    whole = (run / name).read_bytes()
    for i, damaged in enumerate([*values(whole), *mutations(whole, 60)]):
        (run / name).write_bytes(damaged)
        for use in readers(run):
            try:
                use()
            except (ValueError, OSError) as error:
                assert type(error) in (ValueError, BadFile), (i, damaged, error)
                assert name in str(error), (i, damaged, error)


def values(whole: bytes):
    """The file's JSON with one of its values, at any depth, put in place of another."""
    odd = (None, [], {}, "x", "\x1b[31m", -1, 1e308, True, [[]], {"a": None}, 10**400)
    try:
        root = json.loads(whole)
    except ValueError:
        root = json.loads(whole.splitlines()[0])
    yield from (json.dumps(x).encode() for x in odd)
    for path in paths(root):
        for x in odd:
            copy = json.loads(json.dumps(root))
            parent = copy
            for part in path[:-1]:
                parent = parent[part]
            parent[path[-1]] = x
            yield json.dumps(copy).encode()


def paths(value, path=()):
    keys = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in keys:
        yield (*path, key)
        yield from paths(inner, (*path, key))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["knobs.json", "result.json", "members/member-0-1-1/knobs.json", "members/member-0-1-1/result.json"],
)
def test_damaged_files_of_a_sweep_end_in_a_page_or_in_one_message(tmp_path, monkeypatch, name):
    monkeypatch.setattr("jaxmodels.report.page.library", lambda: b"")
    sweep = write_sweep(tmp_path / "sweep", kinds=("sgd",))
    whole = (sweep / name).read_bytes()
    if name == "result.json":  # many members: its first ones say all
        said = json.loads(whole)
        whole = json.dumps({key: x[:1] if isinstance(x, list) else x for key, x in said.items()}).encode()
    for i, damaged in enumerate([*list(values(whole))[::9], *mutations(whole, 12)]):
        (sweep / name).write_bytes(damaged)
        for use in (
            lambda: report([sweep]),
            lambda: watch(sweep, once=True, rich=Rich(width=80, quiet=True)),
        ):
            try:
                use()
            except (ValueError, OSError) as error:
                assert type(error) in (ValueError, BadFile), (i, damaged, error)


@pytest.mark.slow
def test_what_a_sweep_goes_on_from_is_checked(tmp_path):
    whole = json.dumps({"members": ["lr=0.1", "lr=0.2"], "how": [2, 5]}).encode()
    checksummed_json.write(tmp_path / "members.json", json.loads(whole))
    assert loop_of(tmp_path).shape == (2, 5)
    for damaged in [*values(whole), *mutations(whole, 200), b'{"members": ["../x"], "how": null}']:
        (tmp_path / "members.json").write_bytes(damaged)
        with contextlib.suppress(
            ValueError, AttributeError
        ):  # with a seal that fits: only what it says is wrong
            checksummed_json.write(
                tmp_path / "members.json", {k: x for k, x in json.loads(damaged).items() if k != "sha256"}
            )
        try:
            names = loop_of(tmp_path).members
        except BadFile:
            continue
        assert all("/" not in name for name in names)
    whole = json.dumps({"exit": "complete", "metrics": {"loss": 1.0}}).encode()
    for damaged in [*values(whole), *mutations(whole, 100)]:
        (tmp_path / "result.json").write_bytes(damaged)
        try:
            assert isinstance(result_of(tmp_path)["metrics"], dict)
        except BadFile:
            continue
