"""A run's folder belongs to one experiment, and one process at a time."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from jaxmodels.runs import identity
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder

pytestmark = pytest.mark.fast

SOURCE = '''"""An experiment."""

RATE = 0.1  # found by hand


def build(config):
    """Makes it."""
    return RATE * config.lr
'''
RUN = RunDefinition(SOURCE, {"lr": 0.1, "widths": (8, 8)}, {"precision": "float32"})


def opened(path: Path, identity: RunDefinition = RUN, **how) -> bool:
    """Opens and closes it."""
    folder = Folder(path, keep=2)
    try:
        return folder.open(identity, **how)
    finally:
        folder.close()


def trained(path: Path) -> None:
    """Leaves what a run with a checkpoint leaves."""
    opened(path)
    (path / "checkpoints" / "5").mkdir(parents=True)


def test_it_says_what_was_run(tmp_path):
    assert not opened(tmp_path / "run")
    assert (tmp_path / "run" / "experiment.py").read_text() == SOURCE
    said = json.loads((tmp_path / "run" / "knobs.json").read_text())
    assert said == {"knobs": {"lr": 0.1, "widths": [8, 8]}, "options": {"precision": "float32"}}


def test_the_same_experiment_goes_on(tmp_path):
    trained(tmp_path)
    assert opened(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.replace("# found by hand", "# tuned"),
        lambda s: s.replace("Makes it.", "Makes the experiment."),
        lambda s: s.replace('"""An experiment."""', '"""Another docstring.\n\nOf two paragraphs.\n"""'),
        lambda s: s.replace('    """Makes it."""\n', ""),
        lambda s: s.replace("RATE * config.lr", "(RATE\n        * config.lr)"),
        lambda s: s + "\n\n\n",
    ],
    ids=["comment", "docstring", "module docstring", "no docstring", "layout", "empty lines"],
)
def test_what_only_people_read_makes_no_other_experiment(tmp_path, change):
    trained(tmp_path)
    assert change(SOURCE) != SOURCE
    assert opened(tmp_path, RUN._replace(source=change(SOURCE)))


def test_changed_knobs_are_another_experiment_and_named_with_both_values(tmp_path):
    trained(tmp_path)
    with pytest.raises(ValueError, match="holds another experiment") as error:
        opened(tmp_path, RUN._replace(knobs={"lr": 0.2, "widths": (8, 8), "depth": 3}))
    text = str(error.value)
    assert "lr: 0.1 there, 0.2 here" in text
    assert "depth: (absent) there, 3 here" in text
    assert "widths" not in text
    assert "--fresh" in text and "--force" in text and "--folder" in text


def test_another_precision_is_another_experiment(tmp_path):
    trained(tmp_path)
    with pytest.raises(ValueError, match="precision: float32 there, bfloat16 here"):
        opened(tmp_path, RUN._replace(options={"precision": "bfloat16"}))


def test_changed_code_is_another_experiment_and_shown_as_a_diff(tmp_path):
    trained(tmp_path)
    with pytest.raises(ValueError, match="holds another experiment") as error:
        opened(tmp_path, RUN._replace(source=SOURCE.replace("RATE = 0.1", "RATE = 0.3")))
    assert "-RATE = 0.1  # found by hand" in str(error.value)
    assert "+RATE = 0.3  # found by hand" in str(error.value)
    assert "Makes it" not in str(error.value)


def test_a_refusal_changes_nothing(tmp_path):
    trained(tmp_path)
    before = (tmp_path / "knobs.json").read_text()
    with pytest.raises(ValueError):
        opened(tmp_path, RUN._replace(knobs={}))
    assert (tmp_path / "knobs.json").read_text() == before


def test_force_goes_on_with_the_other_experiment_and_says_so_in_the_folder(tmp_path):
    """But not before it is known that the checkpoint fits: then `settle` is called."""
    trained(tmp_path)
    before = {
        path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path.name != ".lock"
    }
    folder = Folder(tmp_path, keep=2)
    assert folder.open(RUN._replace(knobs={"lr": 0.2}), force=True)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    folder.settle()
    folder.close()
    assert json.loads((tmp_path / "knobs.json").read_text())["knobs"] == {"lr": 0.2}
    assert identity.verify(tmp_path) == json.loads(before["run.json"])["run"]
    assert opened(tmp_path, RUN._replace(knobs={"lr": 0.2}))


def test_fresh_keeps_every_old_run_under_another_name(tmp_path):
    path = tmp_path / "run"
    for lr in (0.1, 0.2, 0.3):
        assert not opened(path, RUN._replace(knobs={"lr": lr}), fresh=True)
        (path / "checkpoints" / "5").mkdir(parents=True)
    rates = {p.name: json.loads((p / "knobs.json").read_text())["knobs"]["lr"] for p in tmp_path.iterdir()}
    assert rates == {"run": 0.3, "run.1": 0.1, "run.2": 0.2}


def test_a_second_process_is_refused_and_told_who_is_there(tmp_path):
    first = Folder(tmp_path, keep=2)
    first.open(RUN)
    for how in ({}, {"force": True}, {"fresh": True}):
        with pytest.raises(ValueError, match=rf"is in use: process {os.getpid()} on .* is training in it"):
            opened(tmp_path, **how)
    first.close()
    opened(tmp_path)


@pytest.mark.slow
def test_a_process_that_died_holds_nothing(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from jaxmodels.runs.definition import RunDefinition; "
        "from jaxmodels.runs.folder import Folder; "
        f"Folder(Path({str(tmp_path)!r}), keep=2).open(RunDefinition('', {{}}, {{}})); os.kill(os.getpid(), "
        "9)"
    )
    import sys

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    opened(tmp_path, RunDefinition("", {}, {}))


def test_a_folder_that_cannot_be_written_is_said_with_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ValueError,
        match=r"run: got Not a directory; expected a folder that can be written\. Choose another one with",
    ):
        opened(tmp_path / "file" / "run")


def test_the_environment_is_written_down(tmp_path):
    folder = Folder(tmp_path, keep=2)
    folder.open(RUN)
    folder.write_environment(steps_per_dispatch=3)
    folder.close()
    said = json.loads((tmp_path / "environment.json").read_text())
    assert said["steps_per_dispatch"] == 3
    assert said["pid"] == os.getpid()
    assert {"python", "host", "command", "devices", "versions", "commit", "xla_flags"} <= said.keys()
    assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?", said["commit"] or "0" * 40)


DAMAGE = {
    "cut": b'{"knobs": {"lr"',
    "empty": b"",
    "no text": b"\xff\xfe",
    "a list": b"[]",
    "deep": b"[" * 10**5,
}


@pytest.mark.parametrize("name", ["knobs.json", "experiment.py", "run.json"])
@pytest.mark.parametrize("content", [*DAMAGE.values(), None], ids=[*DAMAGE, "absent"])
def test_a_damaged_file_that_says_what_was_run_is_named_and_no_message_says_to_delete_it(
    tmp_path, name, content
):
    trained(tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}(?s:.)*Copy it back .* start over with --fresh") as error:
        opened(tmp_path / "run")
    assert "elete" not in str(error.value)
    assert not opened(tmp_path / "run", fresh=True)
    assert (tmp_path / "run.1" / "checkpoints" / "5").is_dir()
    assert opened(tmp_path / "run") is False


@pytest.mark.parametrize("name", ["knobs.json", "experiment.py"])
def test_forced_it_goes_on_though_what_was_run_is_damaged(tmp_path, name):
    trained(tmp_path)
    (tmp_path / name).write_bytes(b"{")
    folder = Folder(tmp_path, keep=2)
    assert folder.open(RUN, force=True)
    folder.settle()
    folder.close()
    assert opened(tmp_path)


def test_every_flipped_bit_of_what_was_run_is_found(tmp_path):
    trained(tmp_path)
    for name in ("knobs.json", "experiment.py", "run.json"):
        content = (tmp_path / name).read_bytes()
        for bit in range(0, 8 * len(content), 23):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(flipped)
            with pytest.raises(ValueError, match=name):
                identity.verify(tmp_path)
        (tmp_path / name).write_bytes(content)
    identity.verify(tmp_path)


def test_a_start_that_was_killed_at_once_leaves_nothing_that_is_in_the_way(tmp_path):
    (tmp_path / "experiment.py").write_text("")
    (tmp_path / "knobs.json").write_text("{")
    assert not opened(tmp_path)
    assert (tmp_path / "experiment.py").read_text() == SOURCE


def test_a_copied_folder_keeps_its_id_and_another_run_has_another(tmp_path):
    trained(tmp_path / "run")
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    opened(tmp_path / "other")
    ids = [identity.verify(tmp_path / name) for name in ("run", "copy", "other")]
    assert ids[0] == ids[1] != ids[2]


def test_a_damaged_result_counts_as_none(tmp_path):
    (tmp_path / "result.json").write_text("{")
    assert Folder(tmp_path, keep=2).result() == {}
