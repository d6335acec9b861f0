"""The experiments that are made for accelerators, run for two steps on generated data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from instances import first

from jaxmodels import cli

EXPERIMENTS = Path(__file__).parents[1] / "experiments"


def cifar(folder):
    rows = np.random.default_rng(0).integers(0, 10, (16, 3073), dtype=np.uint8)
    for name in (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"):
        (folder / name).write_bytes(rows.tobytes())


def imagenet(folder):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for split, each in (("train", 8), ("val", 3)):
        for name in ("n01", "n02"):
            (folder / split / name).mkdir(parents=True)
            for i in range(each):
                pixels = rng.integers(0, 256, (40 + i, 50, 3), dtype=np.uint8)
                image.fromarray(pixels).save(folder / split / name / f"{i}.jpg")


@pytest.mark.parametrize(
    ("name", "make", "knobs"),
    first(
        1,
        [
            ("imagenet_vit_s16", imagenet, {"batch": 8, "size": 32, "classes": 2}),
            ("cifar_resnet20", cifar, {"batch": 8, "steps": 2}),
            ("imagenet_resnet50", imagenet, {"batch": 8, "size": 32, "classes": 2}),
        ],
    ),
)
def test_it_trains_and_evaluates(name, make, knobs, tmp_path, capsys):
    data, run = tmp_path / "data", tmp_path / "run"
    data.mkdir()
    make(data)
    knobs |= {"mesh": "data=1", "data": data, "folder": run, "stop-at": 2, "steps-per-dispatch": 1}
    options = [part for knob, value in knobs.items() for part in (f"--{knob}", str(value))]
    file = str(EXPERIMENTS / f"{name}.py")
    assert cli.main(["train", file, *options]) == 0, capsys.readouterr()
    assert cli.main(["evaluate", str(run), "--mesh", "data=1"]) == 0
    assert "accuracy" in capsys.readouterr().out
