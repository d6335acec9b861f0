"""The tiny MLP with a pipeline that remembers how often it was asked: what no pipeline may do."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from files import tiny_mlp

from jaxmodels import Experiment
from jaxmodels.data.pipeline import ArrayPipeline


@dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 40
    fails: bool = False


class Counting(ArrayPipeline):
    """Every batch is a little larger than the one before."""

    asked = 0

    def resident(self) -> None:
        return None

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        self.asked += 1
        batch = super().rows(step, start, stop)
        return {**batch, "features": batch["features"] * np.float32(1 + 1e-3 * self.asked)}


def build(config: Config) -> Experiment:
    if config.fails:
        raise OSError("disk 3 does not answer")
    experiment = tiny_mlp.build(tiny_mlp.Config(steps=config.steps))
    return replace(experiment, train=Counting(tiny_mlp.arrays("train"), batch=8, seed=0))
