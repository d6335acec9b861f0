"""Least squares in bare JAX: three functions and no flax. Metrics tell which examples and keys a step saw.

Dimensions: N examples, B batch, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import Experiment, Mean, Task, optim
from jaxmodels.data.pipeline import ArrayPipeline

F = 5


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 10
    batch: int = 8
    lr: float = 0.1
    n: int = 52
    remainder: Literal["wrap", "drop", "pad"] = "wrap"
    eval_every: int = 0
    save_every: int = 0
    log_every: int = 1


def task() -> Task:
    """Mean squared error of x W + b, with noise on x while training."""

    def init(key: jax.Array, batch: Any) -> tuple[Any, Any]:
        return {"W": 0.1 * jax.random.normal(key, (F,)), "b": jnp.zeros(())}, {}

    def measure(params: Any, x_BF: jax.Array, batch: Any) -> Mean:
        error_B = x_BF.astype(params["W"].dtype) @ params["W"] + params["b"] - batch["y"]
        return Mean.of(error_B.astype(jnp.float32) ** 2, batch["weight"])

    def loss(params: Any, extra: Any, batch: Any, keys_B: jax.Array) -> tuple[Mean, Any, dict[str, Mean]]:
        word_B = jax.vmap(lambda key: jax.random.bits(key, (), "uint16"))(keys_B)
        # Sums of small whole numbers are exact, in any order.
        seen = {"examples": Mean.of(batch["id"], batch["weight"]), "keys": Mean.of(word_B, batch["weight"])}
        noise_B = word_B.astype(jnp.float32) / 2**16 - 0.5
        return measure(params, batch["x"] + 0.1 * noise_B[:, None], batch), extra, seen

    def evaluate(params: Any, extra: Any, batch: Any) -> dict[str, Mean]:
        return {"loss": measure(params, batch["x"], batch)}

    return Task(init, loss, evaluate)


def arrays(n: int, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    x_NF = random.normal(size=(n, F)).astype(np.float32)
    return {"x": x_NF, "y": x_NF @ np.arange(F, dtype=np.float32) + 1, "id": np.arange(n, dtype=np.int32)}


def build(config: Config) -> Experiment:
    return Experiment(
        task=task(),
        optimizer=optim.sgd(optim.warmup_cosine(config.lr, warmup=0, steps=config.steps)),
        train=ArrayPipeline(
            arrays(config.n), batch=config.batch, seed=config.seed, remainder=config.remainder
        ),
        evals={"test": ArrayPipeline(arrays(13, seed=1), batch=config.batch)},
        steps=config.steps,
        seed=config.seed,
        eval_every=config.eval_every or None,
        checkpoint_every=config.save_every or None,
        log_every=config.log_every,
    )
