"""Every model of the library with every task, small enough to compile in a second. A new model joins the list TINY.

Dimensions: B batch, H W C image, F features, T tokens, K classes or outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import numpy as np

from jaxmodels.models.cnn import CNN
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.mlp import MLP
from jaxmodels.models.moe import MoE
from jaxmodels.task import Task
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.regress import regress

B, K, V, T = 8, 5, 11, 6  # eight rows divide over two devices x two micro-batches


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiny:
    """A task and a batch of B examples with "weight" 1."""

    name: str
    task: Task
    batch: dict[str, np.ndarray]
    outputs: Callable[[Any, Any, Any], Any] | None = None  # (params, extra, batch) to what evaluation sees, an example a row
    random: bool = False  # the training loss depends on the keys
    float32: str = ""  # occurs in the shape of products that stay in float32 on purpose, such as a router's
    norm_per_device: bool = False  # training uses statistics of its batch: each micro-batch, each pmap device has its own

    def __str__(self) -> str:
        return self.name


def outputs_of(model: nn.Module, inputs: str) -> Callable[[Any, Any, Any], Any]:
    return lambda params, extra, batch: model.apply({"params": params, **extra}, batch[inputs])


def images(H: int = 8, W: int = 8, C: int = 1) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "image": random.normal(size=(B, H, W, C)).astype(np.float32),
        "label": random.integers(0, K, B, dtype=np.int32),
        "weight": np.ones(B, np.float32),
    }


def features(F: int = 7, outputs: int = 2) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "features": random.normal(size=(B, F)).astype(np.float32),
        "target": random.normal(size=(B, outputs)).astype(np.float32),
        "weight": np.ones(B, np.float32),
    }


def tokens() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    stream_BT = random.integers(0, V, (B, T + 1), dtype=np.int32)
    return {"inputs": stream_BT[:, :-1], "targets": stream_BT[:, 1:], "weight": np.ones((B, T), np.float32)}


def classifier(name: str, model: nn.Module, *, random: bool = False, norm_per_device: bool = False) -> Tiny:
    return Tiny(
        name=name,
        task=classify(model),
        batch=images(),
        outputs=outputs_of(model, "image"),
        random=random,
        norm_per_device=norm_per_device,
    )


def regressor(name: str, model: nn.Module) -> Tiny:
    return Tiny(name=name, task=regress(model), batch=features(), outputs=outputs_of(model, "features"))


def language_model(name: str, model: nn.Module, *, random: bool = False, float32: str = "") -> Tiny:
    outputs = outputs_of(model, "inputs")
    return Tiny(name=name, task=next_token(model), batch=tokens(), outputs=outputs, random=random, float32=float32)


CNN_SIZES = {"classes": K, "channels": (3, 4), "hidden": 6}
GPT_SIZES = {"vocabulary": V, "length": T, "width": 8, "depth": 2, "heads": 2}
LLAMA_SIZES = {**GPT_SIZES, "key_heads": 1}
MOE_SIZES = {"experts": 4, "chosen": 2, "expert_width": 6, "shared_width": 5}

TINY = [
    classifier("mlp", MLP((9, 6), K)),
    classifier("mlp-dropout", MLP((9, 6), K, dropout=0.3), random=True),
    regressor("mlp-regress", MLP((9,), 2, nn.tanh)),
    classifier("cnn", CNN(**CNN_SIZES)),
    classifier("cnn-norm-dropout", CNN(**CNN_SIZES, batch_norm=True, dropout=0.3), random=True, norm_per_device=True),
    language_model("gpt-dropout", GPT(**GPT_SIZES, dropout=0.2), random=True),
    language_model("gpt-untied-remat-unroll", GPT(**GPT_SIZES, tied=False, remat="full", unroll=2)),
    language_model(
        "llama-window-biases", Llama(**LLAMA_SIZES, hidden_width=12, window=3, biases=("query", "key", "value"), tied=True)
    ),
    language_model(
        "moe-shared-remat",
        MoE(**LLAMA_SIZES, **MOE_SIZES, head_norm=True, balance=0.1, remat="full"),
        float32="x4xf32",
    ),
]
