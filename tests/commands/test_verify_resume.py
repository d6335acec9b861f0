"""verify-resume: the proof, and that it finds an experiment that does not survive."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
from files import impure, tiny_mlp
from runs import test_code

from jaxmodels import cli
from jaxmodels.cli.parsing import parse
from jaxmodels.commands import verify_resume

fast = pytest.mark.fast


@pytest.fixture(autouse=True)
def tests_are_importable(monkeypatch):
    """For the processes that verify-resume starts, whose experiments import one another."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))


def test_an_experiment_that_is_a_pure_function_of_the_step_passes(capsys):
    argv = ["verify-resume", tiny_mlp.__file__, "--through", "60", "--every", "10", "--kills", "2"]
    status = cli.main([*argv, "--steps", "90", "--dropout", "0.1", "--json"])
    out, err = capsys.readouterr()
    said = json.loads(out)
    assert status == 0, err
    assert said["passed"] is True
    assert said["kills"] == 2
    # Evaluations at 6, 12, ... leave checkpoints too, where they were the best so far.
    assert {10, 20, 30, 40, 50, 60} <= set(said["checkpoints"])
    assert said["text"].startswith("PASS: after 2 kills all arrays of ")
    assert "killed (2 of 2), newest complete checkpoint:" in err


def test_an_experiment_that_is_not_fails_with_the_step_and_the_array_where_they_part(capsys):
    status = cli.main(
        ["verify-resume", impure.__file__, "--through", "30", "--every", "10", "--kills", "1", "--json"]
    )
    out, _ = capsys.readouterr()
    said = json.loads(out)
    assert status == 1
    assert said["passed"] is False
    assert said["step"] in said["checkpoints"]
    assert said["array"].startswith("params/")
    assert f"FAIL: step {said['step']}, array {said['array']} differs, by up to" in said["text"]


def test_modules_beside_the_experiment_are_found_by_the_processes_that_are_started(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = test_code.write(tmp_path / "here")
    outcome = verify_resume.verify_resume(file, through=4, every=2, kills=0)
    assert outcome.passed and {2, 4} <= set(outcome.checkpoints)


@fast
def test_an_experiment_that_fails_by_itself_is_said_to(capsys):
    status = cli.main(["verify-resume", impure.__file__, "--fails"])
    assert status == 1
    assert "disk 3 does not answer" in capsys.readouterr().err


@fast
@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"every": 0}, "every=0"),
        ({"every": 41}, "every=41"),
        ({"kills": -1}, "kills=-1"),
        ({"through": 0}, "through=0"),
    ],
)
def test_bad_options_are_refused(asked, said):
    with pytest.raises(ValueError, match=f"{said}.* expected 1 <= every <= through and kills >= 0"):
        verify_resume.verify_resume(tiny_mlp.__file__, **asked)


@fast
def test_a_run_without_a_checkpoint_to_go_on_from_is_refused():
    with pytest.raises(
        ValueError, match="got every=24 for 24 steps; expected a checkpoint before the last step"
    ):
        verify_resume.verify_resume(tiny_mlp.__file__, every=24)


def test_a_run_that_ends_before_it_is_killed_is_no_proof(monkeypatch):
    monkeypatch.setattr(verify_resume, "ATTEMPTS", 1)
    monkeypatch.setattr(
        verify_resume, "_kill_later", lambda process, *rest, **how: process.communicate() and True
    )
    with pytest.raises(ValueError, match="got 4 steps that ended before 1 kills; expected a longer run"):
        verify_resume.verify_resume(tiny_mlp.__file__, through=4, every=2, kills=1)


@fast
def test_an_unknown_knob_is_refused():
    with pytest.raises(ValueError, match=r"got no knob 'stesp'; .* Did you mean 'steps'"):
        verify_resume.verify_resume(tiny_mlp.__file__, stesp=3)


@dataclass(frozen=True, kw_only=True)
class Knobs:
    steps: int = 10
    lr: float = 0.1
    flip: bool = False
    bias: bool = True
    widths: tuple[int, ...] = (8, 8)
    clip: float | None = None
    name: str = "x"


@fast
@pytest.mark.parametrize(
    "knobs",
    [
        Knobs(),
        Knobs(steps=-3, lr=1e-5),
        Knobs(flip=True),
        Knobs(bias=False),
        Knobs(widths=(4,), clip=0.5),
        Knobs(name="two words"),
    ],
    ids=str,
)
def test_the_started_command_has_the_same_knobs(knobs):
    flags = verify_resume.knob_flags(knobs, SimpleNamespace(config=Knobs))
    assert parse("jaxmodels train FILE", flags, [], knobs=Knobs)[1] == knobs
