"""Every model of the library with every task, small enough to compile in a second. A new model joins the list TINY.

Dimensions: B batch, H W C image, F features, T tokens, K classes or outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import numpy as np

from jaxmodels.models.bert import Bert, MaskedLM, SpanModel, TextClassifier
from jaxmodels.models.cnn import CNN
from jaxmodels.models.fcos import FCOS, FeaturePyramid
from jaxmodels.models.gpt import GPT
from jaxmodels.models.llama import Llama
from jaxmodels.models.mlp import MLP
from jaxmodels.models.moe import MoE
from jaxmodels.models.resnet import Basic, ResNet, SqueezeExcite
from jaxmodels.models.rnn import RNN, RNNClassifier
from jaxmodels.models.t5 import T5
from jaxmodels.models.textcnn import TextCNN
from jaxmodels.models.transformer import Transformer
from jaxmodels.models.vae import VAE
from jaxmodels.models.vit import ViT
from jaxmodels.task import Task
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.detect import detect
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.masked import masked
from jaxmodels.tasks.question_answering import span
from jaxmodels.tasks.regress import regress
from jaxmodels.tasks.translate import translate
from jaxmodels.tasks.vae import vae

B, K, V, T = 8, 5, 11, 6  # eight rows divide over two devices x two micro-batches


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiny:
    """A task and a batch of B examples with "weight" 1."""

    name: str
    task: Task
    batch: dict[str, np.ndarray]
    outputs: Callable[[Any, Any, Any], Any] | None = (
        None  # (params, extra, batch) to what evaluation sees, an example a row
    )
    random: bool = False  # the training loss depends on the keys
    float32: str = ""  # occurs in the shape of products that stay in float32 on purpose, such as a router's
    idle: str = (
        ""  # finds parameters without a gradient: a bias of keys adds the same to all scores of a softmax
    )
    second: bool = False  # another of its family is in the list: tested where there is time
    norm_per_device: bool = (
        False  # training uses statistics of its batch: each micro-batch, each pmap device has its own
    )

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


def boxes() -> dict[str, np.ndarray]:
    """Images with one or two boxes, and padding."""
    random = np.random.default_rng(1)
    corner_BM2 = random.uniform(0, 3, (B, 3, 2))
    boxes_BM4 = np.concatenate([corner_BM2, corner_BM2 + random.uniform(3, 5, (B, 3, 2))], -1).astype(
        np.float32
    )
    present_BM = np.tile(np.array([1, 0, 0], np.float32), (B, 1))
    present_BM[::2, 1] = 1
    classes_BM = random.integers(0, 2, (B, 3), dtype=np.int32)
    return {
        "image": images()["image"],
        "boxes": boxes_BM4,
        "classes": classes_BM,
        "present": present_BM,
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


def regressor(name: str, model: nn.Module, **options: Any) -> Tiny:
    return Tiny(
        name=name, task=regress(model), batch=features(), outputs=outputs_of(model, "features"), **options
    )


def language_model(name: str, model: nn.Module, **options: Any) -> Tiny:
    return Tiny(
        name=name, task=next_token(model), batch=tokens(), outputs=outputs_of(model, "inputs"), **options
    )


def texts(**more: np.ndarray) -> dict[str, np.ndarray]:
    """Rows of 1 to T tokens, and padding."""
    real_BT = np.arange(T) < np.random.default_rng(1).integers(1, T + 1, B)[:, None]
    inputs_BT = tokens()["inputs"] * real_BT
    return {
        "inputs": inputs_BT,
        "segments": real_BT.astype(np.int32),
        "weight": np.ones(B, np.float32),
    } | more


def of_texts(name: str, model: nn.Module, task: Task, batch: dict[str, np.ndarray], **options: Any) -> Tiny:
    def outputs(params, extra, batch):
        return model.apply({"params": params, **extra}, batch["inputs"], segments_BT=batch["segments"])

    return Tiny(name=name, task=task, batch=batch, outputs=outputs, **options)


def spans() -> dict[str, np.ndarray]:
    batch = texts()
    last_B = batch["segments"].sum(1, dtype=np.int32) - 1
    return {
        **batch,
        "types": batch["segments"],
        "context": batch["segments"],
        "start": np.zeros_like(last_B),
        "end": last_B,
    }


def text_classifier(name: str, model: nn.Module, **options: Any) -> Tiny:
    label_B = np.random.default_rng(2).integers(0, K, B, dtype=np.int32)
    return of_texts(name, model, classify(model, inputs="inputs"), texts(label=label_B), **options)


def translator(name: str, model: nn.Module) -> Tiny:
    def outputs(params, extra, batch):
        return model.apply(
            {"params": params}, batch["source"], batch["inputs"], None, batch["source_segments"]
        )

    source = {"source": texts()["inputs"], "source_segments": texts()["segments"]}
    return Tiny(
        name=name, task=translate(model, smoothing=0.1), batch={**source, **tokens()}, outputs=outputs
    )


CNN_SIZES = {"classes": K, "channels": (3, 4), "hidden": 6}
GPT_SIZES = {"vocabulary": V, "length": T, "width": 8, "depth": 2, "heads": 2}
LLAMA_SIZES = {**GPT_SIZES, "key_heads": 1}
MOE_SIZES = {"experts": 4, "chosen": 2, "expert_width": 6, "shared_width": 5}

BERT = Bert(V, T, 8, 2, 2, 12)
MASKED, SPAN = MaskedLM(BERT), SpanModel(BERT)
KEYS = r"blocks'\]\['key'\]\['bias"

TINY = [
    classifier("mlp-dropout", MLP((9, 6), K, dropout=0.3), random=True),
    regressor("mlp-regress", MLP((9,), 2, nn.tanh), second=True),
    classifier(
        "cnn-norm-dropout", CNN(**CNN_SIZES, batch_norm=True, dropout=0.3), random=True, norm_per_device=True
    ),
    classifier(
        "resnet-excite-dropout",
        ResNet(
            K,
            (1,),
            SqueezeExcite,
            widths=(16,),
            stem="plain",
            stem_width=4,
            groups=2,
            base_width=32,
            dropout=0.2,
        ),
        random=True,
        norm_per_device=True,
    ),
    classifier(
        "vit-registers-drops",
        ViT(K, 8, 2, 2, 4, size=8, registers=1, dropout=0.2, drop_path=0.3),
        random=True,
    ),
    Tiny(
        name="vae",
        task=vae(
            VAE((8, 8, 1), code=3, channels=(4,), hidden=6), likelihood="gaussian", deviation=8.0, beta=0.1
        ),
        batch=images(),
        random=True,
    ),
    Tiny(
        name="fcos",
        task=detect(
            FCOS(ResNet(0, (1,), Basic, (4,), "plain", 4), 2, ("stage_1",), FeaturePyramid(4, 1), 4, 1, 2),
            reach=3.0,
        ),
        batch=boxes(),
        norm_per_device=True,
    ),
    language_model("gpt-dropout", GPT(**GPT_SIZES, dropout=0.2), random=True),
    language_model(
        "gpt-untied-remat-unroll", GPT(**GPT_SIZES, tied=False, remat="full", unroll=2), second=True
    ),
    language_model(
        "llama-window-biases",
        Llama(**LLAMA_SIZES, hidden_width=12, window=3, biases=("query", "key", "value"), tied=True),
    ),
    language_model(
        "moe-shared-remat",
        MoE(**LLAMA_SIZES, **MOE_SIZES, head_norm=True, balance=0.1, remat="full"),
        float32="x4xf32",
    ),
    language_model("lstm-dropout", RNN(V, 8, 2, "lstm", dropout=0.2, tied=False), random=True),
    text_classifier("gru-bidirectional", RNNClassifier(V, K, 8, cell="gru", bidirectional=True)),
    text_classifier(
        "textcnn-dropout", TextCNN(V, K, width=8, windows=(2, 3), maps=5, dropout=0.3), random=True
    ),
    of_texts(
        "bert-masked",
        MASKED,
        masked(MASKED, mask=V - 1, vocabulary=V, rate=0.5),
        texts(weight=texts()["segments"].astype(np.float32)),
        random=True,
        idle=KEYS,
    ),
    text_classifier(
        "bert-classify-dropout",
        TextClassifier(BERT.clone(dropout=0.2), K),
        random=True,
        idle=KEYS,
        second=True,
    ),
    of_texts("bert-span", SPAN, span(SPAN), spans(), idle=f"{KEYS}|head'\\]\\['bias", second=True),
    translator("transformer", Transformer(V, 8, 2, 2, 12)),
    translator("t5-gated-untied", T5(V, 8, 2, 2, 4, 12, gated=True, tied=False)),
]
