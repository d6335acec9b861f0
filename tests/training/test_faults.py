"""What can go wrong in the field, made to go wrong: the run goes on, or stops with a message, never with
wrong numbers.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from files import bare_jax, faulty, tiny_mlp
from instances import first
from listening import Listening
from states import same_bits

from jaxmodels import Options, cli
from jaxmodels.analysis.nonfinite import NotFinite
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.runs import checkpoint_writer
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.state import abstract_state
from jaxmodels.training import runner
from jaxmodels.training.check import check

fast = pytest.mark.fast

ONE = "data=1"
FAULTY, MLP = faulty.__file__, tiny_mlp.__file__


def run(
    experiment: Experiment,
    folder: Path | None = None,
    *,
    console: Console | None = None,
    on_step: Callable[[int], Any] | None = None,
    **options: Any,
) -> runner.Result:
    console = console or Listening()
    options = Options(**{"mesh": ONE, **options})
    if folder is None:
        return runner.run(experiment, options, console=console, on_step=on_step)
    opened = Folder(folder, keep=options.keep or 2, warn=console.warn)
    try:
        opened.open(RunDefinition("", {}, {}))
        return runner.run(experiment, options, folder=opened, console=console, on_step=on_step)
    finally:
        opened.close()


def bad(fault: str, **knobs: Any) -> Experiment:
    return faulty.build(faulty.Config(fault=fault, **knobs))


def bare(**knobs: Any) -> Experiment:
    return bare_jax.build(bare_jax.Config(**{"save_every": 2, "steps": 12, **knobs}))


def saved(experiment: Experiment, folder: Path, step: int | None = None) -> tuple[int, Any]:
    like, _ = abstract_state(experiment, check(experiment, Options(mesh=ONE)))
    n, state, _ = Checkpoints(folder / "checkpoints").restore(like, step)
    return n, state


def lines(folder: Path) -> list[dict]:
    parsed = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith("seconds")} for line in parsed
    ]


def main(capsys, *words: str) -> tuple[int, str, str]:
    """(exit status, stdout, stderr) of a command, which must never answer with a traceback."""
    status = cli.main([str(word) for word in words])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


# Not finite


@pytest.mark.parametrize("k", [pytest.param(1, marks=fast), 4])
def test_a_loss_that_is_not_finite_stops_with_step_rows_examples_and_module(tmp_path, k):
    experiment = bad("huge")
    with pytest.raises(NotFinite) as error:
        run(experiment, tmp_path, steps_per_dispatch=k)
    text = str(error.value)
    examples = ", ".join(map(str, experiment.train.indices(8, 0, 8)))
    assert "step 8:" in text
    assert f"rows 64 to 71 of the stream of examples: examples {examples} of the data set" in text
    assert "First output that is not finite: module MLP/hidden_0" in text
    assert Checkpoints(tmp_path / "checkpoints").steps() == [6]
    assert json.loads((tmp_path / "result.json").read_text())["exit"].startswith("NotFinite: step 8")


@pytest.mark.slow
@fast
@pytest.mark.parametrize("fault", ["nan", "inf"])
def test_data_that_is_not_finite_is_named_with_its_key_and_example(fault):
    experiment = bad(fault)
    example = experiment.train.indices(8, 0, 8)[1]
    with pytest.raises(
        NotFinite, match=rf"step 8.*(?s:.)*batch\['features'\] holds {fault} in row 1 \(example {example}\)"
    ):
        run(experiment)


@pytest.mark.slow
@fast
@pytest.mark.parametrize("k", [1, 4])
def test_what_is_left_after_a_stop_are_the_parameters_before_the_bad_batch(k):
    """The state is frozen from the bad step on, whatever was dispatched behind it."""

    def after(fault: str, steps: int) -> Any:
        training = runner.Training(bad(fault), Options(mesh=ONE, steps_per_dispatch=k), None, Listening())
        programs = training.programs
        state, _ = training.start()
        for n in range(0, steps, k):
            state, _ = programs.get(k)(state, programs.dataset, programs.inputs(range(n, n + k)))
        return state

    left = after("nan", 16)
    assert (int(left.step), int(left.faults) > 0) == (8, True)
    clean = after("none", 8)
    same_bits(left._replace(faults=clean.faults), clean)


@pytest.mark.slow
@fast
def test_skipping_goes_on_without_the_bad_batch_and_counts_it(tmp_path):
    console = Listening()
    result = run(bad("nan"), tmp_path, on_nan="skip", console=console)
    assert result.summary["skipped"] == 1
    assert console.said == ["step 8: loss or gradient not finite, batch skipped (1 so far)"]
    skipped = {line["step"]: line.get("train/skipped") for line in lines(tmp_path) if "train/loss" in line}
    assert skipped == {4: None, 8: None, 12: 1, 16: 1, 20: 1, 24: 1}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(result.state.params))
    assert int(result.state.step) == 24


def test_a_skipped_batch_leaves_the_parameters_as_they_were(tmp_path):
    for n in (8, 9):
        with pytest.raises(runner.Interrupted):
            run(bad("nan", save_every=0), tmp_path / str(n), on_nan="skip", stop_at=n)
    (_, before), (_, after) = (saved(bad("nan"), tmp_path / str(n)) for n in (8, 9))
    jax.tree.map(np.testing.assert_array_equal, after.params, before.params)
    assert (int(after.step), int(after.faults)) == (9, 1)


@pytest.mark.slow
@fast
def test_a_run_that_skipped_goes_on_with_the_same_bits_and_says_nothing_twice(tmp_path):
    whole = run(bad("nan"), tmp_path / "whole", on_nan="skip")
    with pytest.raises(runner.Interrupted):
        run(bad("nan"), tmp_path / "cut", on_nan="skip", stop_at=14)
    console = Listening()
    again = run(bad("nan"), tmp_path / "cut", on_nan="skip", console=console)
    same_bits(again.state, whole.state)
    assert lines(tmp_path / "cut") == lines(tmp_path / "whole")
    assert console.said == []
    assert again.summary["skipped"] == 1


def test_a_run_that_skipped_can_go_on_without_skipping(tmp_path):
    with pytest.raises(runner.Interrupted):
        run(bad("nan"), tmp_path, on_nan="skip", stop_at=14)
    result = run(bad("nan"), tmp_path, on_nan="stop")
    assert int(result.state.step) == 24


def test_after_a_stop_the_same_run_goes_on_with_skip(tmp_path):
    with pytest.raises(NotFinite):
        run(bad("nan"), tmp_path)
    result = run(bad("nan"), tmp_path, on_nan="skip")
    same_bits(result.state, run(bad("nan"), on_nan="skip").state)


@pytest.mark.slow
@fast
def test_the_command_answers_a_loss_that_is_not_finite_with_status_3(capsys, tmp_path):
    status, _, err = main(
        capsys, "train", FAULTY, "--fault", "nan", "--folder", tmp_path / "run", "--mesh", ONE
    )
    assert status == 3
    assert "step 8" in err and "batch['features'] holds nan" in err
    status, _, err = main(
        capsys,
        "train",
        FAULTY,
        "--fault",
        "nan",
        "--folder",
        tmp_path / "run",
        "--mesh",
        ONE,
        "--on-nan",
        "skip",
    )
    assert status == 0
    assert "batch skipped" in err


# A data source that fails


@pytest.mark.slow
@fast
@pytest.mark.parametrize("at", [0, 8, 23])
def test_an_error_of_the_data_source_ends_the_run_with_its_own_words(tmp_path, at):
    before = threading.active_count()
    with pytest.raises(ValueError, match="example 7 cannot be decoded"):
        run(bad("raise_value", at=at), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").steps() == {0: [], 8: [6], 23: [12, 18]}[at]
    assert threading.active_count() <= before
    exit = json.loads((tmp_path / "result.json").read_text())["exit"] if at else "ValueError: example 7"
    assert exit.startswith("ValueError: example 7")


@pytest.mark.slow
@fast
def test_the_command_answers_a_disk_that_fails_in_one_line(capsys, tmp_path):
    status, _, err = main(
        capsys, "train", FAULTY, "--fault", "raise", "--folder", tmp_path / "run", "--mesh", ONE, "--quiet"
    )
    assert (status, err) == (1, "error: disk 3 does not answer\n")


# Signals


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=fast), signal.SIGINT])
def test_a_signal_saves_the_step_where_the_run_stood_and_resume_is_exact(tmp_path, number):
    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(runner.Interrupted) as stop:
        run(bare(), tmp_path, on_step=lambda n: n == 5 and os.kill(os.getpid(), number))
    assert (stop.value.number, stop.value.step, stop.value.saved) == (number, 5, True)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == handlers
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 5
    same_bits(run(bare(), tmp_path).state, run(bare()).state)


@pytest.mark.slow
@fast
def test_a_signal_is_heard_while_the_data_source_does_not_answer(tmp_path):
    experiment = bad("hang", save_every=0)
    seen: list[list[int]] = []

    def send() -> None:
        experiment.train.asked.wait(60)
        os.kill(os.getpid(), signal.SIGTERM)
        deadline = time.monotonic() + 20
        while (steps := Checkpoints(tmp_path / "checkpoints").steps()[-1:]) != [
            8
        ] and time.monotonic() < deadline:
            time.sleep(0.01)
        seen.append(steps)
        experiment.train.answer.set()

    thread = threading.Thread(target=send)
    with pytest.raises(runner.Interrupted) as stop:
        run(experiment, tmp_path, on_step=lambda n: n == 8 and thread.start())
    thread.join()
    assert (stop.value.step, seen) == (8, [[8]])
    same_bits(run(bad("none", save_every=0), tmp_path).state, run(bad("none", save_every=0)).state)


@pytest.mark.parametrize("while_saving", [False, pytest.param(True, marks=fast)])
def test_a_second_signal_ends_at_once_with_sound_checkpoints(tmp_path, monkeypatch, while_saving):
    checkpoints, real = Checkpoints(tmp_path / "checkpoints"), checkpoint_writer.digests_of

    def digests(folder: Path) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.2)
        return real(folder)

    def signals(n: int) -> None:
        if n != 5:
            return
        while checkpoints.steps() != [2, 4]:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)
        if while_saving:
            monkeypatch.setattr(checkpoint_writer, "digests_of", digests)
        else:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        run(bare(), tmp_path, on_step=signals)
    monkeypatch.undo()
    assert checkpoints.steps()[-1] == (5 if while_saving else 4)
    for n in checkpoints.steps():
        checkpoints.verify(n)
    same_bits(run(bare(), tmp_path).state, run(bare()).state)


def started(*words: Any) -> subprocess.Popen:
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "jaxmodels", *map(str, words)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(what: Callable[[], Any], process: subprocess.Popen, pause: float = 0.01) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(pause)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_command_says_where_it_saved_and_its_status_says_by_what(tmp_path, number, status):
    folder = tmp_path / "run"
    process = started(
        "train", MLP, "--steps", 10**6, "--folder", folder, "--save-every", 500, "--steps-per-dispatch", 10
    )
    wait_for(lambda: Checkpoints(folder / "checkpoints").steps(), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == status
    newest = Checkpoints(folder / "checkpoints").steps()[-1]
    assert f"saved at step {newest:,} in {folder}; the same command goes on from there" in out
    assert "Traceback" not in err


# Kills


@pytest.mark.parametrize("kills", first(1, [2, 20]))
def test_after_kills_the_parameters_and_the_log_are_those_of_a_run_without_any(kills, tmp_path):
    """SIGKILL at seeded moments, every other one while a checkpoint is being written."""
    steps = max(120, 30 * kills)
    knobs = [
        "--steps",
        steps,
        "--save-every",
        5,
        "--dropout",
        0.1,
        "--quiet",
        "--eval-every",
        50,
        "--log-every",
        7,
    ]
    whole = started("train", MLP, *knobs, "--folder", tmp_path / "whole")
    draw, killed, inside = random.Random(0), tmp_path / "killed", 0
    checkpoints = Checkpoints(killed / "checkpoints")
    for kill in range(kills):
        process = started("train", MLP, *knobs, "--folder", killed)
        goal = max(checkpoints.steps(), default=0) + draw.randint(1, 3) * 5
        wait_for(lambda goal=goal: max(checkpoints.steps(), default=0) >= goal, process, pause=0.001)
        if kill % 2:
            wait_for(lambda: list(checkpoints.folder.glob(".saving-*")), process, pause=0)
        else:
            time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.communicate()
        inside += bool(list(checkpoints.folder.glob(".saving-*")))
        for n in checkpoints.steps():
            checkpoints.verify(n)
    last = started("train", MLP, *knobs, "--folder", killed)
    for process in (last, whole):
        assert process.communicate(timeout=120)[1] == ""
        assert process.returncode == 0
    assert inside >= kills // 4
    experiment = tiny_mlp.build(tiny_mlp.Config(steps=steps, dropout=0.1))
    (n, a), (m, b) = saved(experiment, killed), saved(experiment, tmp_path / "whole")
    assert n == m == steps
    same_bits(a, b)
    assert lines(killed) == lines(tmp_path / "whole")
    assert not list(checkpoints.folder.glob(".saving-*"))
    results = [json.loads((folder / "result.json").read_text()) for folder in (killed, tmp_path / "whole")]
    assert results[0]["metrics"] == results[1]["metrics"]


# Damaged checkpoints


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run of the tiny MLP, by the command; not to be changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    assert cli.main(["train", MLP, "--folder", str(folder), "--mesh", ONE, "--quiet", "--keep", "2"]) == 0
    return folder


def corrupt(folder: Path) -> Path:
    """Flips a bit in the largest array file of a checkpoint."""
    path = max((p for p in (folder / "state").rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)
    return path


@pytest.mark.slow
@fast
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one_to_the_same_bits(capsys, finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    steps = Checkpoints(folder / "checkpoints").steps()
    path = corrupt(folder / "checkpoints" / "24")
    status, out, err = main(capsys, "train", MLP, "--folder", folder, "--mesh", ONE)
    assert status == 0
    assert path.name in err and "set aside as damaged-24" in err
    assert f"going on from step {steps[-2]}" in out
    experiment = tiny_mlp.build(tiny_mlp.Config())
    same_bits(saved(experiment, folder)[1], saved(experiment, finished)[1])
    assert lines(folder) == lines(finished)


@pytest.mark.slow
@fast
def test_with_every_checkpoint_damaged_the_command_stops_and_starts_nothing_over(capsys, finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    for n in Checkpoints(folder / "checkpoints").steps():
        corrupt(folder / "checkpoints" / str(n))
    for _ in range(2):
        status, _, err = main(capsys, "train", MLP, "--folder", folder, "--mesh", ONE)
        assert status == 2
        assert "no sound checkpoint is left" in err and "--fresh" in err


@pytest.mark.slow
@fast
def test_evaluate_does_not_take_another_checkpoint_for_the_best_without_being_told(
    capsys, finished, tmp_path
):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    checkpoints = Checkpoints(folder / "checkpoints")
    best = checkpoints.best()
    path = corrupt(checkpoints.folder / str(best))
    status, _, err = main(capsys, "evaluate", folder, "--mesh", ONE)
    assert status == 2
    assert f"checkpoint {best}: " in err and path.name in err and "choose with --step" in err
    other = next(n for n in checkpoints.steps() if n != best)
    assert main(capsys, "evaluate", folder, "--mesh", ONE, "--step", other)[0] == 0


# The folder


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    try:
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
        )
    except FileNotFoundError:
        mounted = None
    if mounted is None or mounted.returncode:
        pytest.skip("needs the right to mount a small file system")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


def fill(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as file:
        for size in (4096, 512, 1):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                pass


@pytest.mark.slow
@fast
def test_a_full_disk_is_a_warning_and_when_there_is_room_again_nothing_is_missing(small_disk):
    console, folder = Listening(), small_disk / "run"
    checkpoints = Checkpoints(folder / "checkpoints")

    def disk(n: int) -> None:
        if n == 5:
            while checkpoints.steps() != [2, 4]:
                time.sleep(0.01)
            fill(small_disk)
        if n == 9:
            (small_disk / "filler").unlink()

    result = run(bare(), folder, console=console, on_step=disk)
    same_bits(result.state, run(bare()).state)
    text = "\n".join(console.said)
    assert "no space left on the device. The newest complete one is of step 4" in text
    assert "Training goes on" in text
    for n in checkpoints.steps():
        checkpoints.verify(n)
    assert [line["step"] for line in lines(folder) if "train/loss" in line] == list(range(1, 13))
    same_bits(saved(bare(), folder)[1], result.state)


def test_a_disk_that_stays_full_ends_in_an_error_with_the_earlier_checkpoints_intact(capsys, small_disk):
    words = ["train", bare_jax.__file__, "--steps", 60, "--save-every", 2, "--mesh", ONE]
    status, _, err = main(capsys, *words, "--folder", small_disk / "run", "--keep", 99)
    assert status == 1
    last = err.strip().splitlines()[-1]
    assert (
        last.startswith("error: a checkpoint could not be written") and "no space left on the device" in last
    )
    assert "give the same command again" in last
    checkpoints = Checkpoints(small_disk / "run" / "checkpoints")
    assert len(checkpoints.steps()) > 3
    for n in checkpoints.steps():
        checkpoints.verify(n)
    for n in checkpoints.steps()[:-1]:
        shutil.rmtree(checkpoints.folder / str(n))
    status, out, _ = main(capsys, *words, "--folder", small_disk / "run", "--keep", 1)
    assert status == 0
    assert "going on from step" in out


@fast
def test_a_read_only_folder_is_said_before_anything_is_computed(capsys, small_disk):
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    status, _, err = main(capsys, "train", MLP, "--folder", small_disk / "run", "--mesh", ONE)
    assert status == 2
    assert (
        "got Read-only file system; expected a folder that can be written. Choose another one with --folder"
        in err
    )


@pytest.mark.slow
@fast
def test_a_second_run_in_the_same_folder_is_refused(capsys, tmp_path):
    status = []

    def again(n):
        return n == 5 and status.append(main(capsys, "train", MLP, "--folder", tmp_path, "--mesh", ONE))

    run(bare(), tmp_path, on_step=again)
    assert status[0][0] == 2
    assert f"is in use: process {os.getpid()}" in status[0][2]


def test_another_experiments_folder_is_refused_with_what_differs(capsys, finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    other = tmp_path / "other.py"
    other.write_text(Path(MLP).read_text().replace("momentum=0.9", "momentum=0.8"))
    status, _, err = main(capsys, "train", other, "--folder", folder, "--lr", 0.2, "--mesh", ONE)
    assert status == 2
    assert "lr: 0.05 there, 0.2 here" in err
    assert "-        optimizer=optim.sgd(rate, momentum=0.9)," in err


def test_forced_the_other_experiment_goes_on_and_fresh_it_starts_over(capsys, finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    status, out, _ = main(capsys, "train", MLP, "--folder", folder, "--steps", 30, "--force", "--mesh", ONE)
    assert status == 0
    assert "going on from step 24" in out
    status, out, _ = main(capsys, "train", MLP, "--folder", folder, "--steps", 6, "--fresh", "--mesh", ONE)
    assert status == 0
    assert "going on" not in out
    assert json.loads((tmp_path / "run.1" / "result.json").read_text())["steps"] == 30


@pytest.mark.slow
@fast
def test_forced_upon_other_shapes_it_says_which(capsys, finished, tmp_path):
    folder = Path(shutil.copytree(finished, tmp_path / "run"))
    status, _, err = main(capsys, "train", MLP, "--folder", folder, "--hidden", 11, "--force", "--mesh", ONE)
    assert status == 2
    assert "params/head/kernel is float32[10, 1] there and float32[11, 1] here" in err
