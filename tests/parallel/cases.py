"""Models that every kind of mesh is tried with, each with a batch of eight, large enough to be split.

Dimensions: B batch, H W C image, T tokens, S tokens of a source, V vocabulary, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np
import optax

from jaxmodels import step as stepping
from jaxmodels.models.bert import Bert, MaskedLM
from jaxmodels.models.gpt import GPT
from jaxmodels.models.moe import MoE
from jaxmodels.models.resnet import Basic, ResNet
from jaxmodels.models.transformer import Transformer
from jaxmodels.models.vit import ViT
from jaxmodels.parallel import rules as sharding
from jaxmodels.parallel.compile import compile_step
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.parallel.placement import put_batch, split_positions
from jaxmodels.task import Task
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.masked import masked
from jaxmodels.tasks.translate import translate

B, T, V, K = 8, 8, 16, 8
STEPS = 10
OPTIMIZER = optax.sgd(0.05, momentum=0.9)


@dataclass(frozen=True, eq=False)
class Case:
    """A task, a batch, and the rules of its model."""

    name: str
    task: Task
    batch: dict[str, np.ndarray]
    rules: tuple = ()

    def __str__(self) -> str:
        return self.name


def random() -> np.random.Generator:
    return np.random.default_rng(0)


def tokens(**more: Any) -> dict[str, np.ndarray]:
    stream = random().integers(0, V, (B, T + 1), dtype=np.int32)
    return {"inputs": stream[:, :-1], "targets": stream[:, 1:], "weight": np.ones((B, T), np.float32), **more}


def packed() -> dict[str, np.ndarray]:
    """Two documents in each row, and padding, of different lengths."""
    cut = random().integers(2, T - 3, B)[:, None]
    segments = np.where(np.arange(T) < cut, 1, np.where(np.arange(T) < cut + 3, 2, 0)).astype(np.int32)
    return tokens(segments=segments, weight=(segments > 0).astype(np.float32))


def images(size: int) -> dict[str, np.ndarray]:
    return {
        "image": random().normal(size=(B, size, size, 3)).astype(np.float32),
        "label": random().integers(0, K, B, dtype=np.int32),
        "weight": np.array([1, 1, 0.5, 1, 1, 1, 0, 1], np.float32),
    }


SIZES = {"vocabulary": V, "length": T, "width": 16, "depth": 4, "heads": 4}
GPT_ = GPT(**SIZES, dropout=0.1)
MOE = MoE(**SIZES, key_heads=2, experts=4, chosen=2, expert_width=12, shared_width=8, balance=0.1)
BERT = MaskedLM(Bert(V, T, 16, 4, 4, 16, dropout=0.1))
VIT = ViT(K, 16, 4, 4, 4, size=16, pool="mean", dropout=0.1)
RESNET = ResNet(K, (1, 1), Basic, widths=(8, 16), stem="plain", stem_width=8)
TRANSLATOR = Transformer(V, 16, 4, 4, 16, dropout=0.1)

CASES = [
    Case("gpt-packed-dropout", next_token(GPT_), packed(), GPT_.rules()),
    Case("llama-moe-packed", next_token(MOE), packed(), MOE.rules()),
    Case(
        "bert-dropout",
        masked(BERT, mask=V - 1, vocabulary=V, rate=0.5),
        {"inputs": packed()["inputs"], "segments": packed()["segments"], "weight": packed()["weight"]},
        BERT.encoder.rules(),
    ),
    Case("vit-dropout", classify(VIT), images(16), VIT.rules()),
    Case("resnet", classify(RESNET), images(8)),
    Case(
        "transformer-dropout",
        translate(TRANSLATOR, smoothing=0.1),
        {
            "source": packed()["inputs"][:, ::-1],
            "source_segments": packed()["segments"][:, :1] * np.ones((1, T), np.int32),
            **packed(),
        },
        TRANSLATOR.rules(),
    ),
]
BY_NAME = {case.name.split("-")[0]: case for case in CASES}


def start(case: Case) -> stepping.State:
    return stepping.init(case.task, OPTIMIZER, 0, case.batch)


def compiled(case: Case, axes: str, *, accumulate: int = 1, precision: Any = None) -> tuple[Any, Any, Any]:
    """(the compiled step, the state's shardings, the mesh)."""
    mesh = make_mesh(axes)
    shapes = jax.eval_shape(lambda: start(case))
    placed = sharding.state_shardings(shapes, mesh, case.rules)
    one = stepping.make_step(case.task, OPTIMIZER, accumulate=accumulate, precision=precision)

    def step(state, _, batch):
        return one(state, split_positions(batch, mesh, leading=0))

    jitted = compile_step(step, "jit", mesh, placed, leading=0, donate=False)
    batch = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in case.batch.items()}
    return jitted.lower(shapes, {}, batch).compile(), placed, mesh


def losses(case: Case, axes: str, **options: Any) -> list[float]:
    """The loss of ten steps on this mesh."""
    program, placed, mesh = compiled(case, axes, **options)
    state = jax.device_put(jax.jit(lambda: start(case))(), placed)
    found = []
    for i in range(STEPS):
        batch = {name: np.roll(x, i, axis=0) for name, x in case.batch.items()}
        moving = put_batch(
            lambda first, last, batch=batch: {k: x[first:last] for k, x in batch.items()}, B, mesh
        )
        state, metrics = jax.block_until_ready(program(state, {}, moving))
        found.append(float(metrics["loss"].total) / float(metrics["loss"].weight))
    return found


@cache
def alone(case: Case) -> list[float]:
    """The same on one device."""
    return losses(case, "data=1")
