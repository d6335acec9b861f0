"""One table of exit statuses: an exception carries its own, and the command ends with it."""

from __future__ import annotations

import pytest

from jaxmodels import cli
from jaxmodels.analysis.nonfinite import NotFinite
from jaxmodels.cli.command import Command
from jaxmodels.launch import exit_statuses
from jaxmodels.launch.exit_statuses import FirstFailed, status_of
from jaxmodels.runs.checkpoint import Damaged, PartLost
from jaxmodels.runs.files import BadFile
from jaxmodels.sweeps.lockstep import Stopped
from jaxmodels.training.runner import Interrupted

pytestmark = pytest.mark.fast

CASES = [
    (NotFinite("step 3"), 3),
    (PartLost("disk"), 1),
    (Damaged("manifest"), 2),
    (BadFile("knobs.json"), 2),
    (ValueError("--lr"), 2),
    (ImportError("pillow"), 2),
    (OSError("disk"), 1),
    (ZeroDivisionError(), 1),
    (Interrupted(2, 7, True), 130),
    (Interrupted(15, 7, True), 143),
    (Interrupted(-1, 7, True), 0),
    (Stopped(15, 7), 143),
    (FirstFailed(3, "step 3"), 3),
]


@pytest.mark.parametrize(("error", "status"), CASES, ids=lambda x: repr(x))
def test_an_exception_tells_its_exit_status(error, status):
    assert status_of(error) == status


@pytest.mark.parametrize("error", [NotFinite("step 3"), PartLost("disk"), Damaged("manifest")])
def test_a_command_prints_the_message_and_ends_with_the_status(monkeypatch, capsys, error):
    def failing(command, words):
        raise error

    monkeypatch.setattr(Command, "run", failing)
    assert cli.main(["train", "x.py"]) == error.exit_status
    assert capsys.readouterr().err == f"error: {error}\n"


def test_what_process_0_has_printed_is_not_printed_again(monkeypatch, capsys):
    def failing(command, words):
        raise FirstFailed(exit_statuses.NOT_FINITE, "step 3")

    monkeypatch.setattr(Command, "run", failing)
    assert cli.main(["train", "x.py"]) == exit_statuses.NOT_FINITE
    assert capsys.readouterr().err == ""
