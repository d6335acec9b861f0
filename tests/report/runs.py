"""Runs' folders for the tests of reports, written without training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

HOSTILE = '</script><script>alert(1)</script><!-- & "it\'s"'


def write_run(
    path: Path, *, steps: int = 40, every: int = 1, lr: float = 0.1, name: str = "loss", **result: Any
) -> Path:
    """A folder as a finished run leaves it, but without an experiment that can be built."""
    path.mkdir(parents=True)
    (path / "experiment.py").write_text('"""A made-up run."""\n')
    knobs = {"seed": 0, "batch": 8, "lr": lr}
    (path / "knobs.json").write_text(json.dumps({"knobs": knobs, "options": {"precision": "float32"}}))
    command = ["/usr/bin/jaxmodels", "train", "x.py", "--lr", str(lr)]
    where = {
        "devices": {"platform": "cpu", "kind": "cpu", "count": 1},
        "versions": {"jax": "0.10.2"},
        "commit": "abc",
    }
    (path / "environment.json").write_text(json.dumps({"command": command, **where}))
    with (path / "metrics.jsonl").open("w") as file:
        for n in range(every, steps + 1, every):
            loss = math.exp(-n / steps * 3) + 0.1 * abs(math.sin(n * n))
            values = {f"train/{name}": loss, "train/learning_rate": lr, "train/grad_norm": loss / 2}
            clock = {"seconds": n / 1000, "seconds_waited": n / 9000}
            file.write(json.dumps({"step": n, **values, **clock}) + "\n")
            if n % (steps // 4) == 0:
                file.write(
                    json.dumps({"step": n, f"test/{name}": loss + 0.1, "test/accuracy": 1 - loss / 2}) + "\n"
                )
    whole = {
        "exit": "complete",
        "metrics": {f"test/{name}": 0.15, "test/accuracy": 0.975},
        "steps": steps,
        "train_s": steps / 1000,
        "baselines": {"published": {"test/accuracy": 0.95}},
        **result,
    }
    (path / "result.json").write_text(json.dumps(whole))
    return path


def write_sweep(path: Path, *, ended: bool = True, kinds: tuple[str, ...] = ("sgd", HOSTILE)) -> Path:
    """A folder as `jaxmodels sweep` leaves it: 2 kinds x 4 rates x 3 seeds, of which one member diverged."""
    path.mkdir(parents=True)
    (path / "experiment.py").write_text('"""A made-up sweep."""\n')
    (path / "knobs.json").write_text(json.dumps({"knobs": {"batch": 8}, "options": {}}))
    command = ["/usr/bin/jaxmodels", "sweep", "x.py", "--lr", "0.001,0.01,0.1,1.0", "--seed", "0..2"]
    (path / "environment.json").write_text(json.dumps({"command": command, "versions": {"jax": "0.10.2"}}))
    rows = []
    for a, kind in enumerate(kinds):
        for b, lr in enumerate((1e-3, 1e-2, 1e-1, 1.0)):
            for seed in range(3):
                knobs, name = {"kind": kind, "lr": lr, "seed": seed}, f"member-{a}-{b}-{seed}"
                accuracy = 0.9 - 0.02 * (b - 2) ** 2 + 0.001 * a + 0.003 * seed - 0.001 * (b * seed % 2)
                lost = lr == 1.0 and seed == 2 and a == 0
                row = {
                    "exit": "NotFinite: of step 3" if lost else "complete",
                    "metrics": {"test/accuracy": accuracy},
                }
                folder = write_run(path / "members" / name, **row)
                (folder / "knobs.json").write_text(json.dumps(knobs))
                rows.append({"name": name, "knobs": knobs, **row})
                if not ended and b == 3:
                    (folder / "result.json").unlink()
    if ended:
        table = {
            "metric": "test/accuracy",
            "goal": "max",
            "members": rows,
            "settings": [{"knobs": {"kind": "", "lr": 0}}],
        }
        (path / "result.json").write_text(json.dumps({**table, "wall_s": 12.0, "compile_s": 3.0}))
    return path
