"""Runs' folders for the tests of reports, written without training."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

HOSTILE = '</script><script>alert(1)</script><!-- & "it\'s"'


def made(path: Path, *, steps: int = 40, every: int = 1, lr: float = 0.1, name: str = "loss", **result: Any) -> Path:
    """A folder as a finished run leaves it, but without an experiment that can be built."""
    path.mkdir(parents=True)
    (path / "experiment.py").write_text('"""A made-up run."""\n')
    knobs = {"seed": 0, "batch": 8, "lr": lr}
    (path / "knobs.json").write_text(json.dumps({"knobs": knobs, "options": {"precision": "float32"}}))
    command = ["/usr/bin/jaxmodels", "train", "x.py", "--lr", str(lr)]
    where = {"devices": {"platform": "cpu", "kind": "cpu", "count": 1}, "versions": {"jax": "0.10.2"}, "commit": "abc"}
    (path / "environment.json").write_text(json.dumps({"command": command, **where}))
    with (path / "metrics.jsonl").open("w") as file:
        for n in range(every, steps + 1, every):
            loss = math.exp(-n / steps * 3) + 0.1 * abs(math.sin(n * n))
            values = {f"train/{name}": loss, "train/learning_rate": lr, "train/grad_norm": loss / 2}
            clock = {"seconds": n / 1000, "seconds_waited": n / 9000}
            file.write(json.dumps({"step": n, **values, **clock}) + "\n")
            if n % (steps // 4) == 0:
                file.write(json.dumps({"step": n, f"test/{name}": loss + 0.1, "test/accuracy": 1 - loss / 2}) + "\n")
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
