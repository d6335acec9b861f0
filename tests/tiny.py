"""Every model family and every task of the library, small enough to compile in a second.

A new one joins the list TINY: test_contract.py compares the list with jaxmodels/models and jaxmodels/tasks.
Where a property of the contract does not hold, EXCEPTIONS says why; NOT_HERE names other files.
Dimensions: B batch, H W C image, F features, T tokens, K classes or outputs, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxmodels.data.augment import crop, flip
from jaxmodels.layers.mel import log_mel
from jaxmodels.layers.table_embedding import Field
from jaxmodels.models import vit
from jaxmodels.models.alexnet import AlexNet
from jaxmodels.models.autoencoder import Autoencoder
from jaxmodels.models.bert import Bert, MaskedLM, SpanModel, TextClassifier, TokenClassifier
from jaxmodels.models.cnn import CNN
from jaxmodels.models.conformer import Conformer
from jaxmodels.models.convnext import ConvNeXt
from jaxmodels.models.dbn import DBN
from jaxmodels.models.deepar import DeepAR
from jaxmodels.models.deepfm import DeepFM
from jaxmodels.models.detr import DETR
from jaxmodels.models.dit import DiT
from jaxmodels.models.dlinear import DLinear
from jaxmodels.models.dlrm import DLRM
from jaxmodels.models.ds_cnn import DSCNN, Separable
from jaxmodels.models.factorization import FactorizationMachine, MatrixFactorization
from jaxmodels.models.fastspeech import FastSpeech
from jaxmodels.models.fcos import FCOS, FeaturePyramid
from jaxmodels.models.ft_transformer import FTTransformer
from jaxmodels.models.gan import Discriminator, Generator
from jaxmodels.models.gpt import GPT
from jaxmodels.models.inception import GoogLeNet, google
from jaxmodels.models.inception_time import InceptionTime
from jaxmodels.models.llama import Llama
from jaxmodels.models.mae import MAE
from jaxmodels.models.mixer import Mixer
from jaxmodels.models.mlp import MLP
from jaxmodels.models.mobilenet import Inverted, MobileNet
from jaxmodels.models.moe import MoE
from jaxmodels.models.mtcnn import MTCNN
from jaxmodels.models.ncf import NeuMF
from jaxmodels.models.patchtst import PatchTST
from jaxmodels.models.perceptron import Perceptron
from jaxmodels.models.rbm import RBM
from jaxmodels.models.resnet import Basic, ResNet, SqueezeExcite
from jaxmodels.models.rnn import RNN, RNNClassifier
from jaxmodels.models.sasrec import SASRec
from jaxmodels.models.t5 import T5
from jaxmodels.models.tabular_resnet import TabularResNet
from jaxmodels.models.tcn import TCNForecaster
from jaxmodels.models.textcnn import TextCNN
from jaxmodels.models.transformer import Transformer
from jaxmodels.models.two_tower import Tower, TwoTower
from jaxmodels.models.unet import UNet
from jaxmodels.models.vae import VAE
from jaxmodels.models.vit import ViT
from jaxmodels.models.voice_conversion import VoiceConverter
from jaxmodels.models.wavenet import WaveNet
from jaxmodels.models.whisper import Whisper
from jaxmodels.task import Task
from jaxmodels.tasks.adaline import adaline
from jaxmodels.tasks.augmented import augmented, changed
from jaxmodels.tasks.bpr import bpr
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.clicks import clicks
from jaxmodels.tasks.contractive import contractive
from jaxmodels.tasks.contrastive_divergence import contrastive_divergence
from jaxmodels.tasks.ctc import ctc
from jaxmodels.tasks.denoising import denoising
from jaxmodels.tasks.detect import detect
from jaxmodels.tasks.diffusion import diffusion
from jaxmodels.tasks.dino import dino
from jaxmodels.tasks.forecast import forecast, forecasts
from jaxmodels.tasks.gan import gan
from jaxmodels.tasks.greedy import greedy
from jaxmodels.tasks.in_batch import in_batch
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.likelihood import likelihood
from jaxmodels.tasks.lora import lora
from jaxmodels.tasks.mae import mae
from jaxmodels.tasks.masked import masked
from jaxmodels.tasks.metric_learning import arcface, triplet
from jaxmodels.tasks.next_item import next_item, next_item_softmax
from jaxmodels.tasks.penalty import penalised
from jaxmodels.tasks.perceptron import perceptron
from jaxmodels.tasks.pretrained import start_from
from jaxmodels.tasks.projection import Projected
from jaxmodels.tasks.quantiles import quantile_forecasts, quantiles
from jaxmodels.tasks.question_answering import question_answering
from jaxmodels.tasks.regress import regress
from jaxmodels.tasks.set_prediction import set_prediction
from jaxmodels.tasks.simclr import simclr
from jaxmodels.tasks.sparse import sparse
from jaxmodels.tasks.text_to_mel import text_to_mel
from jaxmodels.tasks.token_classification import token_classification
from jaxmodels.tasks.translate import translate
from jaxmodels.tasks.up_down import up_down
from jaxmodels.tasks.vae import vae
from jaxmodels.tasks.voice_conversion import voice_conversion
from jaxmodels.tasks.waveform import conditions_of, next_sample

B, K, V, T = 8, 5, 11, 6  # eight rows divide over two devices x two micro-batches


@dataclass(frozen=True, kw_only=True, eq=False)
class Tiny:
    """A task and a batch of B examples with "weight" 1."""

    name: str
    task: Task
    batch: dict[str, np.ndarray]
    outputs: Callable[[Any, Any, Any], Any] | None = None  # (params, extra, batch) to an output by example
    random: bool = False  # the training loss depends on the keys
    second: bool = False  # its family or task is in the list already: a thorough instance

    def exempt(self, rule: str) -> bool:
        """Whether this property of the contract does not hold here."""
        return self.name in EXCEPTIONS[rule]

    def has_statistics(self) -> bool:
        """Whether training changes other variables than parameters."""
        return EXCEPTIONS["parts of a batch add up to the batch"].get(self.name) != RIVALS

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


def signs() -> dict[str, np.ndarray]:
    label_B = np.random.default_rng(2).integers(0, 2, B, dtype=np.int32)
    return {**{name: features(8)[name] for name in ("features", "weight")}, "label": label_B}


def tokens() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    stream_BT = random.integers(0, V, (B, T + 1), dtype=np.int32)
    return {"inputs": stream_BT[:, :-1], "targets": stream_BT[:, 1:], "weight": np.ones((B, T), np.float32)}


def classifier(name: str, model: nn.Module, *, random: bool = False) -> Tiny:
    return Tiny(
        name=name, task=classify(model), batch=images(), outputs=outputs_of(model, "image"), random=random
    )


def regressor(name: str, model: nn.Module, **options: Any) -> Tiny:
    return Tiny(
        name=name, task=regress(model), batch=features(), outputs=outputs_of(model, "features"), **options
    )


def language_model(name: str, model: nn.Module, **options: Any) -> Tiny:
    return Tiny(
        name=name, task=next_token(model), batch=tokens(), outputs=outputs_of(model, "inputs"), **options
    )


def queries(params, extra, batch):
    """What DETR's queries predict, with the examples on the first axis."""
    found = DETECTOR.apply({"params": params, **extra}, batch["image"])
    return found.logits_LBQK.swapaxes(0, 1), found.boxes_LBQ4.swapaxes(0, 1)


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


def translator(
    name: str, model: nn.Module, source: dict[str, np.ndarray] | None = None, **options: Any
) -> Tiny:
    def outputs(params, extra, batch):
        return model.apply(
            {"params": params}, batch["source"], batch["inputs"], None, batch["source_segments"]
        )

    source = source or {"source": texts()["inputs"], "source_segments": texts()["segments"]}
    return Tiny(
        name=name,
        task=translate(model, smoothing=0.1),
        batch={**source, **tokens()},
        outputs=outputs,
        **options,
    )


def sounds(frames: int = 12, features: int = 6) -> dict[str, np.ndarray]:
    """Frames of sounds of different lengths, each with a text of two labels."""
    random = np.random.default_rng(0)
    count_B = random.integers(8, frames + 1, B)
    return {
        "features": random.normal(size=(B, frames, features)).astype(np.float32),
        "segments": (np.arange(frames) < count_B[:, None]).astype(np.int32),
        "labels": np.pad(random.integers(1, K, (B, 2), dtype=np.int32), ((0, 0), (0, 1))),
        "weight": np.ones(B, np.float32),
    }


def said(model: nn.Module) -> Callable[[Any, Any, Any], Any]:
    return lambda params, extra, batch: model.apply(
        {"params": params}, batch["features"], None, batch["segments"]
    )


def waves(model: WaveNet, **options: Any) -> Tiny:
    """Sounds of different lengths with a category and frames."""
    random = np.random.default_rng(0)
    count_B = random.integers(8, 13, B)
    audio_BS = random.uniform(-0.5, 0.5, (B, 12)).astype(np.float32)
    batch = {
        "audio": audio_BS,
        "segments": (np.arange(12) < count_B[:, None]).astype(np.int32),
        "categories": categories(*model.categories),
        "frames": random.normal(size=(B, 12 // model.hop, 3)).astype(np.float32),
        "weight": np.ones(B, np.float32),
    }

    def outputs(params, extra, batch):
        x_BS = model.encoded(batch["audio"])
        return model.apply({"params": params}, x_BS, **conditions_of(batch))

    return Tiny(task=next_sample(model), batch=batch, outputs=outputs, **options)


def voices() -> dict[str, np.ndarray]:
    """Sounds of 18 samples at most, by four speakers."""
    random = np.random.default_rng(0)
    count_B = random.integers(12, 19, B)
    return {
        "audio": random.normal(size=(B, 18)).astype(np.float32),
        "segments": (np.arange(18) < count_B[:, None]).astype(np.int32),
        "speaker": random.integers(0, 4, B, dtype=np.int32),
        "weight": np.ones(B, np.float32),
    }


def series(known: int = 0, history: int = 8, horizon: int = 3) -> dict[str, np.ndarray]:
    """Histories of two series, what followed, and columns that are known ahead."""
    random = np.random.default_rng(0)
    sizes = {"history": (history, 2), "target": (horizon, 2), "known": (history + horizon, known)}
    batch = {
        name: random.normal(size=(B, *size)).astype(np.float32) for name, size in sizes.items() if size[1]
    }
    return {**batch, "weight": np.ones((B, horizon, 2), np.float32)}


def forecaster(name: str, model: nn.Module, *, known: int = 0, **options: Any) -> Tiny:
    return Tiny(name=name, task=forecast(model), batch=series(known), outputs=forecasts(model), **options)


def texts_with_sounds() -> dict[str, np.ndarray]:
    """Two or three labels each, and 24 to 32 samples."""
    random = np.random.default_rng(5)
    labels_BL = random.integers(1, V, (B, 3), dtype=np.int32)
    labels_BL[::2, 2] = 0
    segments_BS = (np.arange(32) < random.integers(24, 33, (B, 1))).astype(np.int32)
    audio_BS = random.normal(size=(B, 32)).astype(np.float32) * segments_BS
    return {"labels": labels_BL, "audio": audio_BS, "segments": segments_BS, "weight": np.ones(B, np.float32)}


CNN_SIZES = {"classes": K, "channels": (3, 4), "hidden": 6}
GPT_SIZES = {"vocabulary": V, "length": T, "width": 8, "depth": 2, "heads": 2}
LLAMA_SIZES = {**GPT_SIZES, "key_heads": 1}
MOE_SIZES = {"experts": 4, "chosen": 2, "expert_width": 6, "shared_width": 5}

BERT = Bert(V, T, 8, 2, 2, 12)
MASKED, SPAN, TAGS = MaskedLM(BERT), SpanModel(BERT), TokenClassifier(BERT, K)
ALEXNET = AlexNet(
    0, (8,) * 5, (3,) * 5, (1,) * 5, stride=1, pooled=(0, 1), final=2, hidden=(12, 10), dropout=0.2
)
CONVNEXT = ConvNeXt(K, (1, 1), (4, 6), patch=2, drop_path=0.3, layer_scale=0.5)
CONFORMER = Conformer(K, 8, 1, 2, kernel=3, halvings=1, channels=3, dropout=0.2)
DETECTOR = DETR(
    ResNet(0, (1,), Basic, (4,), "plain", 4),
    "stage_1",
    2,
    queries=4,
    width=8,
    heads=2,
    depth=2,
    hidden_width=12,
)
FASTSPEECH = FastSpeech(
    V, 3, width=8, depth=1, heads=2, hidden_width=6, kernel=3, duration_width=4, dropout=0.2
)
GOOGLENET = GoogLeNet(
    K, auxiliary=True, stem=(4,), stages=((google(3, 2, 3, 2, 2, 2),), (google(3, 2, 3, 2, 2, 2),) * 4)
)
CONVOLUTIONS = TCNForecaster(3, 3, widths=(4, 4), dropout=0.2)
INCEPTION_TIME = InceptionTime(K, depth=3, width=3, kernels=(4, 2))
CODER = Autoencoder(64, (7,), 3, code_activation=nn.sigmoid)
MACHINES = RBM(64, 6), RBM(6, 4)
MACHINE = RBM(64, 6, "gaussian", deviation=2.0)
MASKED_AUTOENCODER = MAE(
    ViT(0, 8, 1, 2, 4, size=8), vit.Block(heads=2, hidden_width=12), 16, width=8, depth=1
)
MIXER = Mixer(K, 8, 2, 4, size=8, drop_path=0.3)
MOBILENET = MobileNet(
    0, (Inverted(3, 4, 4), Inverted(3, 8, 4, 1, True, True)), stem=4, last=6, dense=5, hard=True, dropout=0.0
)
PROJECTED = Projected(MLP((6,), 5), hidden=6, width=4)
WAVENET = WaveNet((1, 2), 4, 5, levels=8, mixtures=2, categories=(3, 2), hop=4, condition=5)
VOICES = VoiceConverter(4, width=6, depth=2, code=3, kernel=3)
VIEWS = partial(changed, changes=(flip, crop(1)))


def categories(*sizes: int) -> np.ndarray:
    """An index below each size, B x F."""
    random = np.random.default_rng(4)
    return np.stack([random.integers(0, size, B, dtype=np.int32) for size in sizes], 1)


def actions() -> dict[str, np.ndarray]:
    """Items of users in order of time, with padding before them, and the items that followed."""
    batch = texts()
    inputs_BT = np.where(batch["segments"] > 0, batch["inputs"] % V + 1, 0)[:, ::-1].astype(np.int32)
    targets_BT = np.where(inputs_BT > 0, (inputs_BT * 3) % V + 1, 0).astype(np.int32)
    return {"inputs": inputs_BT, "targets": targets_BT, "weight": (targets_BT > 0).astype(np.float32)}


def clicked(name: str, model: nn.Module, numbers: int = 0, **options: Any) -> Tiny:
    """A model of categories, and of numbers, that gives the logit of a click."""
    random = np.random.default_rng(5)
    more = {"numbers": random.normal(size=(B, numbers)).astype(np.float32)} if numbers else {}
    label_B = random.integers(0, 2, B).astype(np.float32)
    batch = {"ids": categories(*model.sizes), "label": label_B, "weight": np.ones(B, np.float32), **more}
    return Tiny(name=name, task=clicks(model), batch=batch, **options)


def retrieved() -> dict[str, np.ndarray]:
    """Users and items, some of them twice, and how often the items come."""
    user_B, item_B = categories(4, 5).T
    frequency_B = np.log(np.bincount(item_B)[item_B] / B).astype(np.float32)
    weight_B = np.ones(B, np.float32)
    return {"user": user_B, "item": item_B, "log_frequency": frequency_B, "weight": weight_B}


def scored(model: nn.Module) -> Callable[[Any, Any, Any], Any]:
    return lambda params, extra, batch: model.apply({"params": params}, batch["user"], batch["item"])


class Faces(nn.Module):
    """All that a network of MTCNN predicts for a window, as one row."""

    network: MTCNN

    def __call__(self, x_BHWC, keys_B=None):
        said = self.network(x_BHWC, keys_B)
        return jnp.concatenate([said.face[:, None].astype(said.edges.dtype), said.edges, said.points], -1)


FACES = Faces(MTCNN((3, 4), (3, 2), (2, 0), 8, dense=6, marks=True))


def windows() -> dict[str, np.ndarray]:
    return {"target": features(1, 15)["target"], **images()}


BATCH_NORM = (
    "batch normalisation: each micro-batch and each device of pmap has its own statistics, as in the papers"
)
RIVALS = "an example is compared with the examples that the loss sees"
SIMILARITIES = "embeddings of length 1 are compared in float32"
KEY_BIAS = "a bias of keys adds the same to all scores of a softmax"

# A property of tests/test_contract.py, the problems where it does not hold, and why.
EXCEPTIONS: dict[str, dict[str, str]] = {
    "parts of a batch add up to the batch": {
        "inception-time": BATCH_NORM,
        "tabular-resnet-dropout": BATCH_NORM,
        "cnn-norm-dropout": BATCH_NORM,
        "ds-cnn-dropout": BATCH_NORM,
        "resnet-excite-dropout": BATCH_NORM,
        "fcos": BATCH_NORM,
        "detr": BATCH_NORM,
        "googlenet-auxiliary": BATCH_NORM,
        "mobilenet-arcface": BATCH_NORM,
        "dino": "teacher and centre follow each part of the batch",
        "simclr": RIVALS,
        "two-tower": RIVALS,
        "alexnet-triplet": RIVALS,
    },
    "the loss has an evaluation": {
        "dino": "no example may see another, so the metric is the likeness of an image's two views",
        "simclr": "its rivals are other examples; the metric is the likeness of an image's two views",
        "two-tower": "its rivals are other examples; the metric is the score of the own item",
        "alexnet-triplet": "it compares examples; the metric is the length of an embedding",
        "gan": "two losses that are at odds; the metrics are the parts that are told apart",
        "rbm": "its value says nothing, only its gradient; the metrics are free energy and reconstruction",
        "dbn-greedy": "its value says nothing, only its gradient; the metrics are reconstructions",
        "dbn-up-down": "its value says nothing, only its gradient; the metric is a bound",
    },
    "every parameter has a gradient": {
        "bert-masked": KEY_BIAS,
        "bert-classify-dropout": KEY_BIAS,
        "bert-tag": KEY_BIAS,
        "detr": KEY_BIAS,
        "conformer-ctc-dropout": KEY_BIAS,
        "bert-span": f"{KEY_BIAS}; so does the head's bias, as the softmax is over the tokens",
        "mixer-pretrained": "a bias across patches is the same for all channels; normalisation removes it",
        "mobilenet-arcface": "the batch normalisation that follows removes what the narrow one adds",
    },
    "products are in bfloat16": {
        "moe-shared-remat": "the router stays in float32",
        "alexnet-triplet": SIMILARITIES,
        "mobilenet-arcface": SIMILARITIES,
        "simclr": SIMILARITIES,
        "conformer-ctc-dropout": "the sums over paths are in float32",
        "fastspeech-dropout": "the target's mel filters and the scores of alignments are in float32",
    },
    "bfloat16 rounds the first loss": {
        "dit": "the last layer begins at zero",
        "unet": "the last layer begins at zero",
        "perceptron": "it begins at zero",
        "adaline": "it begins at zero",
        "dbn-up-down": "units are drawn, and nearly evenly at first",
    },
}
IDLE = {  # regular expressions for the parameters without a gradient; by default biases of keys
    "mixer-pretrained": r"token_down'\]\['bias",
    "mobilenet-arcface": r"narrow'\]\['norm'\]\['bias",
    "bert-span": r"blocks'\]\['key'\]\['bias|head'\]\['bias",
    "detr": r"_key'\]\['bias",
    "conformer-ctc-dropout": r"key'\]\['bias",
}
FLOAT32 = {  # a regular expression that occurs in the shapes of the products that stay in float32
    "moe-shared-remat": "x4xf32",
    "alexnet-triplet": "8x10xf32>, tensor<10x8xf32",
    "mobilenet-arcface": "8x5xf32>, tensor<5x5xf32",
    "simclr": "16x4xf32>, tensor<4x16xf32",
    "fastspeech-dropout": "8x9x5xf32>, tensor<5x3xf32|8x3x3xf32>, tensor<8x9x3xf32",
    "conformer-ctc-dropout": "8x6x5xf32>, tensor<8x3x5xf32|8x4xf32>, tensor<8x4xf32",
}
RATE = {
    "detr": 1e-3,
    "voice-conversion": 1e-3,
}  # of the updates, where the sum of the loss over examples is steep; else 0.3

# Files of models/ and tasks/ that no problem of TINY can come from, and why.
NOT_HERE = {
    "tasks.annealed_importance": "an estimate of a partition function; models/test_rbm.py",
    "models.hifi_gan": "a decoder, whose training is not here; models/test_hifi_gan.py",
    "models.vits": "generation alone; models/test_vits.py",
    "tasks.apply": "how tasks call a model",
    "tasks.boxes": "arithmetic of boxes",
    "tasks.ctc_decoding": "searches in what a model of frames says",
    "tasks.cross_entropy": "the loss of tasks.language and tasks.translate, over chunks of the vocabulary",
    "tasks.face_detection": "a cascade of trained networks, on the host",
    "tasks.forecaster": "a person's table in, forecasts out; inference/test_forecasts.py",
    "tasks.gathered": "a task whose tables are gathered rows; training/test_lazy_step.py",
    "tasks.mup": "a task that starts and scales its model by width; tasks/test_mup.py",
    "tasks.recommend": "where a recommender places an item, for scores on the host",
    **{
        f"tasks.{name}": "a distribution of tasks.likelihood; tasks/test_likelihood.py"
        for name in ("gaussian", "student_t", "negative_binomial")
    },
    "tasks.keys": "random keys from an example's content",
    "tasks.ranking": "metrics of logits",
    "tasks.requirements": "what a batch must hold",
}

FIELDS = (Field("number", 2), Field("category", 3), Field("number"), Field("number"))  # of features()
FACTORS = MatrixFactorization(4, 5, 3, attributes=2, mean=3.0)
COLLABORATIVE = NeuMF(4, 5, 3, (8, 4))
TOWERS = TwoTower(Tower(4, 3, (6, 5)), Tower(5, 3), temperature=0.5)
SELF_ATTENTION = SASRec(V, T, width=8, heads=2, dropout=0.2)

TINY = [
    classifier("mlp-dropout", MLP((9, 6), K, dropout=0.3), random=True),
    regressor("mlp-regress", MLP((9,), 2, nn.tanh), second=True),
    classifier("cnn-norm-dropout", CNN(**CNN_SIZES, batch_norm=True, dropout=0.3), random=True),
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
    ),
    text_classifier(
        "bert-classify-dropout",
        TextClassifier(BERT.clone(dropout=0.2), K),
        random=True,
        second=True,
    ),
    of_texts("bert-span", SPAN, question_answering(SPAN), spans(), second=True),
    translator("transformer", Transformer(V, 8, 2, 2, 12)),
    translator("t5-gated-untied", T5(V, 8, 2, 2, 4, 12, gated=True, tied=False)),
    translator(
        "whisper-dropout",
        Whisper(V, 8, 2, 2, 12, decoder_depth=1, bands=6, length=T, dropout=0.2),
        {"source": sounds()["features"], "source_segments": sounds()["segments"]},
        random=True,
    ),
    of_texts("bert-tag", TAGS, token_classification(TAGS), texts(label=tokens()["inputs"] % K), second=True),
    Tiny(
        name="alexnet-triplet",
        task=triplet(ALEXNET),
        batch=images(),
        outputs=outputs_of(ALEXNET, "image"),
        random=True,
    ),
    Tiny(
        name="convnext-augmented",
        task=augmented(classify(CONVNEXT), (flip, crop(1))),
        batch=images(),
        outputs=outputs_of(CONVNEXT, "image"),
        random=True,
    ),
    Tiny(name="detr", task=set_prediction(DETECTOR), batch=boxes(), outputs=queries, random=True),
    Tiny(name="dit", task=diffusion(DiT(8, 1, 2, 4, classes=K)), batch=images(), random=True),
    Tiny(name="unet", task=diffusion(UNet((16, 16), heads=2, dropout=0.2)), batch=images(), random=True),
    Tiny(
        name="gan",
        task=gan(Generator((8, 8, 1), 3, (16, 16)), Discriminator((4, 4))).task,
        batch=images(),
        random=True,
    ),
    Tiny(
        name="rbm",
        task=contrastive_divergence(MACHINE),
        batch=images(),
        outputs=outputs_of(MACHINE, "image"),
        random=True,
    ),
    Tiny(
        name="dbn-greedy",
        task=greedy(DBN(MACHINES), pixels="probabilities").task,
        batch={**images(), "image": (images()["image"] > 0).astype(np.float32)},
        outputs=outputs_of(DBN(MACHINES), "image"),
        random=True,
    ),
    Tiny(name="dbn-up-down", task=up_down(DBN(MACHINES, "untied")), batch=images(), random=True),
    Tiny(name="autoencoder-denoising", task=denoising(CODER, miss="squared"), batch=images(), random=True),
    Tiny(name="autoencoder-sparse", task=sparse(CODER, miss="squared"), batch=images()),
    Tiny(name="autoencoder-contractive", task=contractive(CODER, miss="squared"), batch=images()),
    Tiny(
        name="perceptron",
        task=perceptron(Perceptron()),
        batch=signs(),
        outputs=outputs_of(Perceptron(), "features"),
    ),
    Tiny(name="adaline", task=adaline(Perceptron()), batch=signs()),
    Tiny(
        name="googlenet-auxiliary",
        task=classify(GOOGLENET, auxiliary=0.3),
        batch=images(),
        outputs=outputs_of(GOOGLENET, "image"),
        random=True,
    ),
    Tiny(name="mae", task=mae(MASKED_AUTOENCODER, patch=4, kept=0.5), batch=images(), random=True),
    Tiny(
        name="mixer-pretrained",
        task=start_from(
            classify(MIXER), {"head": {"kernel": np.random.default_rng(3).random((8, K), np.float32)}}
        ),
        batch=images(),
        outputs=outputs_of(MIXER, "image"),
        random=True,
    ),
    classifier(
        "ds-cnn-dropout",
        DSCNN(K, (Separable(6), Separable(8, 2)), stem=4, kernel=(4, 3), dropout=0.2),
        random=True,
    ),
    Tiny(name="mobilenet-arcface", task=arcface(MOBILENET, K, scale=5.0), batch=images()),
    Tiny(
        name="mtcnn",
        task=regress(FACES, inputs="image"),
        batch=windows(),
        outputs=outputs_of(FACES, "image"),
    ),
    Tiny(
        name="conformer-ctc-dropout",
        task=ctc(CONFORMER, inputs="features"),
        batch=sounds(),
        outputs=said(CONFORMER),
        random=True,
    ),
    waves(WAVENET, name="wavenet"),
    Tiny(
        name="fastspeech-dropout",
        task=text_to_mel(FASTSPEECH, partial(log_mel, rate=8, size=8, hop=4, bands=3), hop=4),
        batch=texts_with_sounds(),
        random=True,
    ),
    waves(WAVENET.clone(output="logistics"), name="wavenet-logistics", second=True),
    Tiny(
        name="voice-conversion",
        task=voice_conversion(VOICES, lambda audio_BS: audio_BS.reshape(-1, 6, 3), 3, 4, warp=0.2),
        batch=voices(),
        random=True,
    ),
    forecaster("dlinear-known", DLinear(3, kernel=3), known=2),
    forecaster(
        "patchtst-dropout",
        PatchTST(3, 4, 2, 2, width=8, depth=1, heads=2, hidden_width=12, norm="layer", dropout=0.2),
        random=True,
    ),
    Tiny(
        name="tcn-quantiles-dropout",
        task=quantiles(CONVOLUTIONS, (0.1, 0.5, 0.9)),
        batch=series(),
        outputs=quantile_forecasts(CONVOLUTIONS),
        random=True,
    ),
    Tiny(
        name="deepar-dropout",
        task=likelihood(DeepAR(3, "student_t", width=4, depth=2, dropout=0.2)),
        batch=series(2),
        random=True,
    ),
    Tiny(
        name="inception-time",
        task=classify(INCEPTION_TIME, inputs="history"),
        batch={**images(), "history": series()["history"]},
        outputs=outputs_of(INCEPTION_TIME, "history"),
    ),
    regressor(
        "ft-transformer-dropout",
        FTTransformer(FIELDS, 2, width=8, depth=2, heads=2, hidden_width=6),
        random=True,
    ),
    regressor(
        "tabular-resnet-dropout",
        TabularResNet(FIELDS, 2, "periodic", embedding=4, width=8, depth=1, hidden_width=6),
        random=True,
    ),
    Tiny(name="simclr", task=simclr(PROJECTED, VIEWS), batch=images(), random=True),
    Tiny(name="dino", task=dino(PROJECTED, VIEWS), batch=images(), random=True),
    Tiny(name="gpt-lora", task=lora(next_token(GPT(**GPT_SIZES)), rank=2, alpha=4.0), batch=tokens()),
    Tiny(
        name="factorization-rating",
        task=penalised(regress(FACTORS, inputs="ids"), FACTORS),
        batch={"ids": categories(4, 5, 3, 3), **{key: features(1, 1)[key] for key in ("target", "weight")}},
        outputs=outputs_of(FACTORS, "ids"),
    ),
    Tiny(
        name="sasrec",
        task=next_item(SELF_ATTENTION),
        batch=actions(),
        outputs=outputs_of(SELF_ATTENTION, "inputs"),
        random=True,
    ),
    Tiny(
        name="sasrec-softmax",
        task=next_item_softmax(SELF_ATTENTION.clone(dropout=0.0), negatives=4, popularity_V=np.arange(V) + 1),
        batch=actions(),
        random=True,
        second=True,
    ),
    clicked("factorization-machine", FactorizationMachine((4, 5, 3), 3), numbers=3, second=True),
    clicked("ncf", COLLABORATIVE),
    clicked("dlrm", DLRM((4, 5, 3), 4, (6,), (6,)), numbers=2),
    clicked("deepfm-dropout", DeepFM((4, 5, 3), 4, (6, 5), dropout=0.2), numbers=2, random=True),
    Tiny(
        name="ncf-bpr",
        task=bpr(COLLABORATIVE),
        batch={
            "ids": categories(4, 5),
            "negatives": categories(5, 5, 5)[:, ::-1],
            "weight": np.ones(B, np.float32),
        },
    ),
    Tiny(name="two-tower", task=in_batch(TOWERS), batch=retrieved(), outputs=scored(TOWERS)),
]
