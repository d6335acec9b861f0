"""The experiments of a folder, and the health of a computer."""

from __future__ import annotations

import json
import os
from pathlib import Path

import jax
import pytest

from jaxmodels import cli
from jaxmodels.commands import doctor
from jaxmodels.commands import list as listing

pytestmark = pytest.mark.fast
EXPERIMENTS = Path(__file__).parents[2] / "experiments"


def written(folder: Path, name: str, when: int, **result) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "result.json").write_text(json.dumps({"exit": "complete", **result}))
    os.utime(folder / name / "result.json", (when, when))


def test_every_experiment_of_the_repository_is_listed_with_what_it_is():
    found = {Path(of["file"]).stem: of for of in listing.list_experiments(EXPERIMENTS)}
    assert {"digits_mlp", "gpt3", "fashion_mnist_vit"} <= found.keys()
    assert all(of["about"] and not of["about"].startswith("cannot") for of in found.values())
    assert found["digits_mlp"]["about"] == "A multilayer perceptron on scikit-learn's handwritten digits"
    assert found["digits_mlp"]["stated"].startswith("99.4% test accuracy (360 images) in 6 s")


def test_the_newest_run_of_an_experiment_is_its_last_with_the_target_beside_it(tmp_path, monkeypatch, capsys):
    (tmp_path / "one.py").write_text(
        '"""One: jaxmodels train one.py"""\nclass Config: ...\ndef build(config): ...\n'
    )
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "other.py").write_text("x = 1\n")
    runs, metrics = tmp_path / "runs", {"test/loss": 0.1, "test/accuracy": 0.8}
    written(runs, "one", 100, metrics=metrics)
    written(
        runs,
        "one-lr=0.1",
        200,
        metrics={**metrics, "test/accuracy": 0.9},
        baselines={"a": {"test/accuracy": 0.95}},
    )
    written(runs, "one_more", 300, metrics={})
    broken, one = listing.list_experiments(tmp_path, runs=runs)
    assert broken["about"].startswith("cannot be read")
    assert (one["about"], Path(one["last"]["run"]).name) == ("One", "one-lr=0.1")
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["list", str(tmp_path), "--runs", str(runs)]) == 0
    assert "accuracy 0.9000, 1970-01-01 (a 0.9500)" in capsys.readouterr().out


@pytest.mark.slow
def test_the_list_has_a_line_for_each_as_wide_as_the_terminal_or_is_json(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr(os, "get_terminal_size", lambda *_: (_ for _ in ()).throw(OSError))  # no terminal
    words = ["list", str(EXPERIMENTS), "--runs", str(tmp_path)]  # not those that lie about
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if line.strip()]) == 1 + len(listing.list_experiments(EXPERIMENTS))
    assert cli.main([*words, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) > 30
    for columns in (200, 80, 60):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert cli.main(words) == 0
        lines = capsys.readouterr().out.splitlines()
        assert all(len(line) <= columns for line in lines)
        assert ("99.4% test acc" in "\n".join(lines)) == (
            columns == 200
        ) and "A multilayer perceptron" in "\n".join(lines)
    assert cli.main(["list", str(tmp_path)]) == 0
    assert "no experiment" in capsys.readouterr().out
    assert cli.main(["list", "nowhere"]) == 2
    assert "nowhere: got no such folder; expected a folder" in capsys.readouterr().err


@pytest.mark.slow
def test_the_doctor_says_what_there_is_and_how_fast(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "SIDE", {"cpu": 64})
    monkeypatch.setattr(doctor, "BYTES", 1 << 16)
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found["speed"]) == 3
    assert all(0 < x["least"] <= x["median"] <= x["most"] for x in found["speed"].values())
    assert found["environment"]["devices"]["platform"] == "cpu" and found["memory_bytes"] > 0
    assert found["extras"]["mlflow"] in ([], ["mlflow-skinny"]) and found["error"] == ""


def test_the_doctor_says_why_there_is_no_device_and_goes_on_with_the_cpu(capsys, monkeypatch):
    devices, told = jax.devices(), []

    def broken(*_):
        if not told:
            raise RuntimeError("Unable to initialize backend 'tpu'\nmore of it")
        return devices

    monkeypatch.setattr(jax, "devices", broken)
    monkeypatch.setattr(jax.config, "update", lambda *words: told.append(words))
    assert cli.main(["doctor", "--speed", "off"]) == 1
    assert told == [("jax_platforms", "cpu")]
    assert (
        "JAX finds no device; the rest describes the CPU: Unable to initialize backend 'tpu'\n"
        in capsys.readouterr().out
    )


def test_the_doctor_warns_of_what_spoils_a_run(monkeypatch, tmp_path):
    for name in doctor.TRAPS:
        monkeypatch.delenv(name, raising=False)
    assert doctor.advice("gpu", 0.0, tmp_path) == []
    monkeypatch.setenv("JAX_DISABLE_JIT", "1")
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(doctor.os, "access", lambda *_: False)
    said = "\n".join(doctor.advice("cpu", 2.0, tmp_path))
    assert "pip install 'jaxmodels[cuda]'" in said
    monkeypatch.setattr(doctor, "_installed", lambda package: True)
    assert "look at its driver" in "\n".join(doctor.advice("cpu", 0.0, tmp_path))
    for part in (
        "GPU that JAX does not use",
        "JAX_DISABLE_JIT=1 changes",
        "keep the cores busy",
        "cannot be written",
    ):
        assert part in said
