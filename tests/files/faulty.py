"""The tiny MLP with data that goes wrong at a chosen step."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from files import tiny_mlp

from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline


@dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 24
    save_every: int = 6
    fault: Literal["none", "nan", "inf", "huge", "raise", "raise_value", "recast", "slow", "hang"] = "none"
    at: int = 8
    log_every: int = 4


class Faulty(ArrayPipeline):
    """Does as it is told before step `at`, then at it (or, for a type, from it on) something else."""

    def __init__(self, fault: str, at: int, **how: Any):
        super().__init__(tiny_mlp.arrays("train"), **how)
        self.fault, self.at = fault, at
        self.asked, self.answer = threading.Event(), threading.Event()  # where it hangs

    def resident(self) -> None:
        return None

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        batch = super().rows(step, start, stop)
        features = batch["features"].copy()
        if self.fault == "recast" and step >= self.at:
            return {**batch, "features": features.astype(np.int32)}
        if self.fault == "slow":
            time.sleep(0.02)
        if step == self.at:
            if self.fault == "hang":
                self.asked.set()
                self.answer.wait(60)
            if self.fault == "raise":
                raise OSError("disk 3 does not answer")
            if self.fault == "raise_value":
                raise ValueError("example 7 cannot be decoded")
            features[1, 2] = {"nan": np.nan, "inf": np.inf}.get(self.fault, features[1, 2])
            features[1] = 3e38 if self.fault == "huge" else features[1]
        return {**batch, "features": features}


def build(config: Config) -> Experiment:
    experiment = tiny_mlp.build(
        tiny_mlp.Config(steps=config.steps, save_every=config.save_every, log_every=config.log_every)
    )
    # Without momentum a batch that is skipped is a batch that was never there.
    return replace(
        experiment, optimizer=optim.sgd(0.05), train=Faulty(config.fault, config.at, batch=8, seed=0)
    )
