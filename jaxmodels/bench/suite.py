"""The suite: what is trained and what is inferred, in three sizes. A change of any case is a new VERSION.

"full" is the model of the literature; "reduced" and "tiny" have its architecture in sizes for CPUs, and are
named so wherever a number stands. All data is random: only shapes matter for speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import Experiment, optim
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models import bert, gpt, llama, moe, resnet, rnn, unet, vit
from jaxmodels.models.cnn import CNN
from jaxmodels.models.mlp import MLP
from jaxmodels.task import Task
from jaxmodels.tasks import language
from jaxmodels.tasks.classify import classify, probabilities
from jaxmodels.tasks.diffusion import diffusion
from jaxmodels.tasks.masked import masked

VERSION = "1"
Size = Literal["full", "reduced", "tiny"]
SIZES: tuple[Size, ...] = ("full", "reduced", "tiny")
BATCHES = 4  # different batches of the data


class Inference(NamedTuple):
    """A function to time: run(params, extra, batch), and how many units of work a call does."""

    run: Callable[[Any, Any, Any], Any]
    batch: dict[str, np.ndarray]
    units: int
    about: str
    reads_parameters: int = 1  # times, as a token's step of generation does


class Workload(NamedTuple):
    """A model in one size. units: what is counted by the second, and how many a training batch has."""

    about: str
    experiment: Callable[[float], Experiment]  # of a learning rate, which may be traced
    units: tuple[str, int]
    inference: Inference | None = None
    members: int = 1  # trained together, by vmap over their learning rates


Case = Mapping[Size, Callable[[], Workload]]


def _experiment(task: Task, data: ArrayPipeline) -> Callable[[float], Experiment]:
    return lambda rate: Experiment(
        task=task, optimizer=optim.adamw(rate, clip=1.0), train=data, steps=1_000_000
    )


def _data(batch: int, **arrays: np.ndarray) -> ArrayPipeline:
    return ArrayPipeline(arrays, batch=batch, seed=0)


def _images(model: Any, about: str, size: int, channels: int, batch: int, classes: int) -> Workload:
    random = np.random.default_rng(0)
    n = BATCHES * batch
    image = random.normal(size=(n, size, size, channels)).astype(np.float32)
    data = _data(batch, image=image, label=random.integers(0, classes, n, dtype=np.int32))
    infer = Inference(
        probabilities(model), {"image": image[:batch]}, batch, f"probabilities of {batch} images"
    )
    about = f"{about}, {batch} images of {size}x{size}x{channels}"
    return Workload(about, _experiment(classify(model), data), ("images", batch), infer)


def _table(model: Any, about: str, features: int, batch: int, classes: int, members: int = 1) -> Workload:
    random = np.random.default_rng(0)
    x = random.normal(size=(BATCHES * batch, features)).astype(np.float32)
    data = _data(batch, x=x, label=random.integers(0, classes, len(x), dtype=np.int32))
    infer: Inference | None = Inference(
        probabilities(model, inputs="x"), {"x": x[:batch]}, batch, f"probabilities of {batch} rows"
    )
    about = f"{about}, {batch} rows of {features}"
    if members > 1:
        about, infer = f"{members} members of {about}", None
    task = classify(model, inputs="x")
    return Workload(about, _experiment(task, data), ("rows", members * batch), infer, members)


def _language(model: Any, about: str, length: int, batch: int, prompt: int = 16, new: int = 32) -> Workload:
    """Next-token training, and greedy generation of one text."""
    random = np.random.default_rng(0)
    tokens = random.integers(0, model.vocabulary, (BATCHES * batch, length + 1), dtype=np.int32)
    data = _data(
        batch, inputs=tokens[:, :-1], targets=tokens[:, 1:], weight=np.ones((len(tokens), length), np.float32)
    )
    decoder = language.decoder(model, encode=lambda text: [], decode=str)

    def generate(params: Any, extra: Any, batch: Any) -> jax.Array:
        tokens_BT = batch["inputs"]
        count_B = jnp.full(len(tokens_BT), tokens_BT.shape[1])
        logits_BV, cache = decoder.read(params, extra, tokens_BT, count_B, prompt + new)

        def one(carry, _):
            logits_BV, cache = carry
            token_B = logits_BV.argmax(-1).astype(jnp.int32)
            return decoder.write(params, extra, token_B, cache), token_B

        return jax.lax.scan(one, (logits_BV, cache), length=new)[1]

    infer = Inference(
        generate, {"inputs": tokens[:1, :prompt]}, new, f"{new} greedy tokens after {prompt}, batch 1", new
    )
    about = f"{about}, {batch} texts of {length} tokens"
    return Workload(about, _experiment(language.next_token(model), data), ("tokens", batch * length), infer)


def _masked(encoder: Any, about: str, length: int, batch: int) -> Workload:
    random = np.random.default_rng(0)
    shape = (BATCHES * batch, length)
    tokens = random.integers(5, encoder.vocabulary, shape, dtype=np.int32)
    data = _data(batch, inputs=tokens, segments=np.ones(shape, np.int32), weight=np.ones(shape, np.float32))
    task = masked(bert.MaskedLM(encoder), mask=4, vocabulary=encoder.vocabulary)

    def encode(params: Any, extra: Any, batch: Any) -> jax.Array:
        own = {"params": {"encoder": params["encoder"]}}
        return bert.Embedder(encoder).apply(own, batch["inputs"], segments_BT=batch["segments"])

    inputs = {"inputs": tokens[:batch], "segments": np.ones((batch, length), np.int32)}
    infer = Inference(encode, inputs, batch * length, f"vectors of {batch} texts of {length} tokens")
    about = f"{about}, {batch} texts of {length} tokens"
    return Workload(about, _experiment(task, data), ("tokens", batch * length), infer)


def _unet(model: Any, about: str, size: int, batch: int) -> Workload:
    random = np.random.default_rng(0)
    image = random.normal(size=(BATCHES * batch, size, size, 3)).astype(np.float32)
    label = random.integers(0, 10, len(image), dtype=np.int32)

    def denoise(params: Any, extra: Any, batch: Any) -> jax.Array:
        time_B = jnp.full(len(batch["image"]), 0.5)
        variables = {"params": params, **extra}
        return model.apply(variables, batch["image"], time_B=time_B, label_B=batch["label"])

    inputs = {"image": image[:batch], "label": label[:batch]}
    infer = Inference(denoise, inputs, batch, f"one denoising of {batch} images")
    about = f"{about}, {batch} images of {size}x{size}x3"
    data = _data(batch, image=image, label=label)
    return Workload(about, _experiment(diffusion(model), data), ("images", batch), infer)


_vit_small = partial(vit.ViT, classes=10, patch=4, size=32)
_llama_1b = partial(
    llama.llama3, width=2048, depth=16, heads=32, key_heads=8, hidden_width=8192, tied=True, length=2048
)
_tiny_text: dict[str, Any] = {"vocabulary": 256, "width": 32, "depth": 2, "heads": 2, "length": 64}

SUITE: dict[str, Case] = {
    "mlp": {
        "full": lambda: _table(MLP((512, 512), 10), "MLP 784-512-512-10", 784, 1024, 10),
        "reduced": lambda: _table(MLP((512, 512), 10), "MLP 784-512-512-10", 784, 128, 10),
        "tiny": lambda: _table(MLP((32, 32), 10), "MLP 16-32-32-10", 16, 32, 10),
    },
    "cnn": {
        "full": lambda: _images(CNN(10, (32, 64, 128)), "CNN 32/64/128", 28, 1, 1024, 10),
        "reduced": lambda: _images(CNN(10, (32, 64, 128)), "CNN 32/64/128", 28, 1, 128, 10),
        "tiny": lambda: _images(CNN(10, (8, 16), hidden=32), "CNN 8/16", 12, 1, 16, 10),
    },
    "resnet50": {
        "full": lambda: _images(resnet.resnet50(1000), "ResNet-50", 224, 3, 256, 1000),
        "reduced": lambda: _images(resnet.resnet18(10, stem="plain"), "ResNet-18", 32, 3, 64, 10),
        "tiny": lambda: _images(
            resnet.ResNet(10, (1, 1), widths=(8, 16), stem="plain", stem_width=8), "ResNet 1-1", 16, 3, 8, 10
        ),
    },
    "vit_b16": {
        "full": lambda: _images(vit.vit_b(classes=1000, patch=16), "ViT-B/16", 224, 3, 256, 1000),
        "reduced": lambda: _images(_vit_small(width=192, depth=6, heads=3), "ViT 192x6", 32, 3, 64, 10),
        "tiny": lambda: _images(_vit_small(width=32, depth=2, heads=2), "ViT 32x2", 32, 3, 8, 10),
    },
    "bert_base": {
        "full": lambda: _masked(bert.bert_base(), "BERT-base", 128, 128),
        "reduced": lambda: _masked(
            bert.Bert(8192, 128, 256, 4, 4, 1024), "BERT 256x4 of 8,192 words", 128, 16
        ),
        "tiny": lambda: _masked(bert.Bert(256, 32, 32, 2, 2, 64), "BERT 32x2 of 256 words", 32, 8),
    },
    "gpt2_small": {
        "full": lambda: _language(gpt.gpt2_small(), "GPT-2 small (124M)", 1024, 16),
        "reduced": lambda: _language(
            gpt.GPT(vocabulary=65, length=256, width=384, depth=6, heads=6), "GPT 384x6 of 65", 256, 8
        ),
        "tiny": lambda: _language(gpt.GPT(**_tiny_text), "GPT 32x2 of 256", 32, 4),
    },
    "gpt2_xl": {
        "full": lambda: _language(gpt.gpt2_xl(remat="dots"), "GPT-2 XL (1.5B)", 1024, 8),
        "reduced": lambda: _language(gpt.gpt2_small(), "GPT-2 small (124M)", 256, 1),
        "tiny": lambda: _language(gpt.GPT(**{**_tiny_text, "depth": 4}), "GPT 32x4 of 256", 32, 4),
    },
    "llama_1b": {
        "full": lambda: _language(_llama_1b(remat="dots"), "Llama 1B (1.2B)", 2048, 4),
        "reduced": lambda: _language(
            llama.Llama(8192, 256, 384, 6, 6, key_heads=2, hidden_width=1024), "Llama 384x6 of 8,192", 256, 4
        ),
        "tiny": lambda: _language(
            llama.Llama(**_tiny_text, key_heads=1, hidden_width=64), "Llama 32x2 of 256", 32, 4
        ),
    },
    "lstm": {
        "full": lambda: _language(rnn.lstm_large(dropout=0.0), "LSTM 1500x2 of 10,000", 64, 64),
        "reduced": lambda: _language(rnn.RNN(1000, 512, 1), "LSTM 512 of 1,000", 64, 32),
        "tiny": lambda: _language(rnn.RNN(256, 32, 1), "LSTM 32 of 256", 16, 4),
    },
    "moe": {
        "full": lambda: _language(
            moe.MoE(
                vocabulary=32000, length=1024, width=1024, depth=12, heads=16,
                key_heads=4, experts=8, chosen=2, expert_width=3584, remat="dots",
            ), "MoE 1024x12, 2 of 8 experts", 1024, 8,
        ),
        "reduced": lambda: _language(
            moe.MoE(
                vocabulary=1024, length=128, width=256, depth=4, heads=4,
                key_heads=2, experts=4, chosen=2, expert_width=512,
            ), "MoE 256x4, 2 of 4 experts", 128, 8,
        ),
        "tiny": lambda: _language(
            moe.MoE(**_tiny_text, key_heads=1, experts=4, chosen=2, expert_width=32),
            "MoE 32x2, 2 of 4 experts", 32, 4,
        ),
    },
    "diffusion_unet": {
        "full": lambda: _unet(
            unet.UNet((128, 256, 256, 256), depth=2, attention=(1,), classes=10), "U-Net 128-256", 32, 256
        ),
        "reduced": lambda: _unet(unet.UNet((32, 64), classes=10), "U-Net 32-64", 32, 32),
        "tiny": lambda: _unet(unet.UNet((8, 8), attention=(), classes=10), "U-Net 8-8", 8, 8),
    },
    "sweep": {
        "full": lambda: _table(MLP((512, 512), 10), "MLP 784-512-512-10", 784, 128, 10, members=64),
        "reduced": lambda: _table(MLP((10, 10), 2), "MLP 10-10-10-2", 10, 128, 2, members=64),
        "tiny": lambda: _table(MLP((10, 10), 2), "MLP 10-10-10-2", 10, 16, 2, members=64),
    },
}  # fmt: skip
