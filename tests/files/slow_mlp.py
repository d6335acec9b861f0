"""The tiny MLP, with data that takes its time, and a way to hold it up or break it in one process.

Dimensions: N examples.
"""

from __future__ import annotations

import os
import resource
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from files import tiny_mlp

from jaxmodels import Evaluation, Experiment, Pipeline


@dataclass(frozen=True, kw_only=True)
class Config(tiny_mlp.Config):
    seconds: float = 0.02  # of reading a batch
    scoring: float = 0.0  # seconds
    asked: str = ""  # a folder: which rows each process read
    fails: int = -1  # the process whose data breaks at step 8
    hangs: int = -1  # the process whose data never comes at step 8
    full: int = -1  # the process that can write no file from step 8 on


class Slow(Pipeline):
    """A pipeline that passes on to another."""

    def __init__(self, inner: Pipeline, config: Config):
        self._inner, self._config = inner, config
        self.batch, self.steps, self.spec = inner.batch, inner.steps, inner.spec

    def indices(self, step: Any, start: int, stop: int) -> np.ndarray | None:
        return self._inner.indices(step, start, stop)

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        config, me = self._config, jax.process_index()
        if config.asked:
            with Path(config.asked, f"{me}.txt").open("a") as file:
                file.write(f"{step} {start} {stop}\n")
        time.sleep(config.seconds)
        if step >= 8 and me == config.fails:
            raise ValueError("disk 3 does not answer")
        if step >= 8 and me == config.full:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        if step >= 8 and me == config.hangs:
            time.sleep(600)
        return self._inner.rows(step, start, stop)


def predict(params: Any, extra: Any, batch: Any) -> Any:
    return {
        "seen": batch["features"][:, 0] + params["hidden_0"]["kernel"].sum() * 0,
        "weight": batch["weight"],
    }


def score(predictions: list[Any], batches: list[Any]) -> dict[str, float]:
    """Which only comes out where every prediction stands beside the example that it was made from."""
    apart = [np.abs(p["seen"] - b["features"][:, 0]).max() for p, b in zip(predictions, batches, strict=True)]
    return {
        "apart": float(max(apart)),
        "scored": sum(len(p["seen"]) for p in predictions),
        "pid": float(os.getpid()),
    }


def drawn(predictions: list[Any], batches: list[Any]) -> dict[str, np.ndarray]:
    return {"first": np.zeros((4, 4, 1), np.uint8)}


def build(config: Config) -> Experiment:
    built = tiny_mlp.build(config)

    def slowly(predictions: list[Any], batches: list[Any]) -> dict[str, float]:
        time.sleep(config.scoring)
        return score(predictions, batches)

    evaluation = Evaluation(built.evals["test"], predict=predict, score=slowly, pictures=drawn)
    return replace(built, train=Slow(built.train, config), evals={"test": evaluation})
