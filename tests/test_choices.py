"""Options given as words: each is checked against its words; a new one without a check fails here."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import typing
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any, Literal

import flax.linen as nn
import jax
import numpy as np
import pytest

import jaxmodels
from jaxmodels import choices, step
from jaxmodels.data import (
    bucketing,
    interactions,
    order,
    packing,
    pairs,
    pipeline,
    recordings,
    series,
    series_windows,
)
from jaxmodels.data.datasets import (
    airline,
    banking77,
    bccd,
    california_housing,
    cifar10,
    digits,
    ett,
    fashion_mnist,
    fsdd,
    fsdd_sequences,
    kws,
    python_source,
    scitldr,
    sentences,
    squad,
    tanaka,
    tinyshakespeare,
    ucr,
)
from jaxmodels.data.formats import (
    array_records,
    audio,
    audio_table,
    byte_text,
    images,
    table_columns,
    table_schema,
    tables,
    text_folder,
    text_table,
    tokenizer,
)
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.layers import mel, quantize, recurrent, rope, spectrogram, stack, table_embedding
from jaxmodels.models.dbn import DBN
from jaxmodels.models.mlp import MLP
from jaxmodels.models.rbm import RBM
from jaxmodels.models.resnet import CifarResNet, resnet50
from jaxmodels.models.vit import vit_s
from jaxmodels.tasks import (
    autoencode,
    classify,
    contractive,
    contrastive_divergence,
    denoising,
    forecaster,
    greedy,
    regress,
    sparse,
    up_down,
)
from jaxmodels.tasks.vae import vae

pytestmark = pytest.mark.fast

PARTS = ("models", "layers", "tasks", "data", "decoding", "optim", "step", "alternating")
NO: Any = "nonesuch"
B: dict[str, Any] = {"batch": 1}
SOUND = np.zeros((1, 9), np.float32)

CALLS: dict[str, Callable[[], Any]] = {
    "data.bucketing Buckets padded": lambda: bucketing.Buckets(
        pipeline.ArrayPipeline({}, **B), lengths=(1,), padded=NO
    ),
    "data.datasets.airline airline split": lambda: airline.airline(NO, 1),
    "layers.recurrent zeros cell": lambda: recurrent.zeros(NO, (1,)),
    "layers.table_embedding Field kind": lambda: table_embedding.TableEmbedding(
        [table_embedding.Field(NO)], 1
    ).init(jax.random.key(0), SOUND),
    "tasks.autoencode autoencode miss": lambda: autoencode.autoencode(MLP((), 1), miss=NO),
    "tasks.autoencode reconstruction miss": lambda: autoencode.reconstruction(SOUND, SOUND, NO),
    "tasks.contractive contractive miss": lambda: contractive.contractive(MLP((), 1), miss=NO),
    "tasks.contrastive_divergence contrastive_divergence pixels": lambda: (
        contrastive_divergence.contrastive_divergence(RBM(2, 2), pixels=NO)
    ),
    "tasks.contrastive_divergence persistent pixels": lambda: contrastive_divergence.persistent(
        RBM(2, 2), pixels=NO
    ),
    "tasks.contrastive_divergence visible pixels": lambda: contrastive_divergence.visible(SOUND, NO, None),
    "tasks.denoising denoising miss": lambda: denoising.denoising(MLP((), 1), miss=NO),
    "tasks.forecaster forecaster kind": lambda: forecaster.forecaster(
        len, table=len, time="t", series=("x",), history=1, horizon=1, kind=NO
    ),
    "tasks.greedy greedy pixels": lambda: greedy.greedy(DBN([RBM(2, 2)]), pixels=NO),
    "tasks.sparse sparse miss": lambda: sparse.sparse(MLP((), 1), miss=NO),
    "tasks.up_down up_down pixels": lambda: up_down.up_down(DBN([RBM(2, 2)]), pixels=NO),
    "tasks.up_down variational_bound pixels": lambda: up_down.variational_bound(DBN([RBM(2, 2)]), pixels=NO),
    "data.datasets.ett etth1 split": lambda: ett.etth1(NO, 1),
    "data.datasets.ett standardised split": lambda: ett.standardised(NO),
    "data.datasets.sentences as_tokens name": lambda: sentences.as_tokens("a", NO, fold=0),
    "data.datasets.ucr ucr problem": lambda: ucr.ucr(NO, "train", 1),
    "data.datasets.ucr ucr split": lambda: ucr.ucr("GunPoint", NO, 1),
    "data.formats.table_columns Column kind": lambda: table_columns.Column("x", NO),
    "data.formats.table_columns learn_column kind": lambda: table_columns.learn_column("x", [1], kind=NO),
    "data.formats.table_schema TableSchema.learn kind": lambda: table_schema.TableSchema.learn(
        {}, [1], [0], target="y", kind=NO
    ),
    "data.interactions number_interactions repeated": lambda: interactions.number_interactions(
        [1], [1], repeated=NO
    ),
    "data.interactions read_interactions repeated": lambda: interactions.read_interactions("x", repeated=NO),
    "data.series from_table gaps": lambda: series.from_table({}, time="t", series=("x",), gaps=NO),
    "data.series read_series gaps": lambda: series.read_series("x.csv", time="t", series=("x",), gaps=NO),
    "data.series_windows SeriesWindows remainder": lambda: series_windows.SeriesWindows(
        dict, history=1, horizon=1, remainder=NO, **B
    ),
    "tasks.classify predictor input": lambda: classify.predictor(MLP((), 1), ("a",), read=dict, input=NO),
    "tasks.regress predictor input": lambda: regress.predictor(MLP((), 1), ("y",), read=dict, input=NO),
    "data.datasets.fsdd fsdd split": lambda: fsdd.fsdd(NO, 1),
    "data.datasets.fsdd recordings split": lambda: fsdd.recordings(NO),
    "data.datasets.fsdd_sequences fsdd_sequences split": lambda: fsdd_sequences.fsdd_sequences(
        NO, 1, count=1
    ),
    "data.datasets.kws kws split": lambda: kws.kws(NO, 1),
    "data.formats.audio_table audio_table remainder": lambda: audio_table.audio_table(
        "x.csv", rate=1, samples=1, labels=1, encode=list, remainder=NO, **B
    ),
    "data.recordings RecordingPipeline remainder": lambda: recordings.RecordingPipeline(
        {"audio": np.zeros(1)}, length=1, remainder=NO, **B
    ),
    "layers.mel hertz_to_mel scale": lambda: mel.hertz_to_mel(np.ones(1), NO),
    "layers.mel mel_to_hertz scale": lambda: mel.mel_to_hertz(np.ones(1), NO),
    "layers.mel mel_power scale": lambda: mel.mel_power(SOUND, rate=8, size=4, hop=2, bands=1, scale=NO),
    "layers.mel mel_power norm": lambda: mel.mel_power(SOUND, rate=8, size=4, hop=2, bands=1, norm=NO),
    "layers.spectrogram frames padding": lambda: spectrogram.frames(SOUND, size=4, hop=2, padding=NO),
    "layers.spectrogram stft padding": lambda: spectrogram.stft(SOUND, size=4, hop=2, padding=NO),
    "data.formats.audio audio_folder crop": lambda: audio.audio_folder(".", rate=1, samples=1, crop=NO, **B),
    "data.formats.audio audio_folder remainder": lambda: audio.audio_folder(
        ".", rate=1, samples=1, remainder=NO, **B
    ),
    "data.formats.audio audio_folder on_broken": lambda: audio.audio_folder(
        ".", rate=1, samples=1, on_broken=NO, **B
    ),
    "data.datasets.banking77 banking77 split": lambda: banking77.banking77(NO, 1, encode=len),
    "data.datasets.banking77 examples split": lambda: banking77.examples(NO),
    "data.datasets.bccd bccd split": lambda: bccd.bccd(NO, 1),
    "data.datasets.california_housing california_housing split": lambda: (
        california_housing.california_housing(NO, 1)
    ),
    "data.datasets.cifar10 cifar10 split": lambda: cifar10.cifar10(NO, 1),
    "data.datasets.digits digits split": lambda: digits.digits(NO, 1),
    "data.datasets.fashion_mnist fashion_mnist split": lambda: fashion_mnist.fashion_mnist(NO, 1),
    "data.datasets.fashion_mnist numbered split": lambda: fashion_mnist.numbered(NO, 1, 1),
    "data.formats.tables read_csv decimal": lambda: tables.read_csv("x.csv", decimal=NO),
    "data.grain_pipeline GrainPipeline remainder": lambda: GrainPipeline(
        [1], load=lambda x: {}, remainder=NO, **B
    ),
    "data.grain_pipeline GrainPipeline on_broken": lambda: GrainPipeline(
        [1], load=lambda x: {}, on_broken=NO, **B
    ),
    "data.formats.images image_folder channels": lambda: images.image_folder(
        ".", size=(1, 1), channels=NO, **B
    ),
    "data.formats.images image_folder on_broken": lambda: images.image_folder(
        ".", size=(1, 1), on_broken=NO, **B
    ),
    "data.formats.images image_folder remainder": lambda: images.image_folder(
        ".", size=(1, 1), remainder=NO, **B
    ),
    "data.formats.images read_image channels": lambda: images.read_image("x.png", 1, channels=NO),
    "data.bucketing TextPipeline remainder": lambda: bucketing.TextPipeline({}, length=1, remainder=NO, **B),
    "data.order Order remainder": lambda: order.Order(1, 1, None, NO),
    "data.packing PackedPipeline long": lambda: packing.PackedPipeline({}, length=1, long=NO, **B),
    "data.packing PackedPipeline remainder": lambda: packing.PackedPipeline({}, length=1, remainder=NO, **B),
    "data.pairs pairs remainder": lambda: pairs.pairs(
        list, source_length=1, target_length=1, begin=0, end=0, remainder=NO, **B
    ),
    "data.pipeline ArrayPipeline remainder": lambda: pipeline.ArrayPipeline({}, remainder=NO, **B),
    "data.pipeline WindowPipeline remainder": lambda: pipeline.WindowPipeline(
        np.zeros(9), length=1, remainder=NO, **B
    ),
    "data.datasets.python_source python_source split": lambda: python_source.python_source(NO),
    "data.formats.array_records record_pipeline on_broken": lambda: array_records.record_pipeline(
        "x", lambda x: {}, on_broken=NO, **B
    ),
    "data.formats.array_records record_pipeline remainder": lambda: array_records.record_pipeline(
        "x", lambda x: {}, remainder=NO, **B
    ),
    "data.datasets.scitldr scitldr split": lambda: scitldr.scitldr(NO),
    "data.datasets.sentences as_text name": lambda: sentences.as_text(np.zeros(1, int), NO, fold=0),
    "data.datasets.sentences sentences name": lambda: sentences.sentences(NO, "train", 1, fold=0),
    "data.datasets.sentences sentences side": lambda: sentences.sentences("polarity", NO, 1, fold=0),
    "data.datasets.squad Squad split": lambda: squad.Squad(
        NO, encode=lambda text: ([], []), first=0, between=0
    ),
    "data.datasets.squad best_sentences split": lambda: squad.best_sentences(NO),
    "data.datasets.squad questions split": lambda: squad.questions(NO),
    "data.datasets.tanaka sentences split": lambda: tanaka.sentences(NO),
    "data.formats.byte_text text_files split": lambda: byte_text.text_files(".", NO),
    "data.formats.text_folder text_folder on_broken": lambda: text_folder.text_folder(
        ".", length=1, on_broken=NO, **B
    ),
    "data.formats.text_folder text_folder remainder": lambda: text_folder.text_folder(
        ".", length=1, remainder=NO, **B
    ),
    "data.formats.text_table text_table remainder": lambda: text_table.text_table(
        {}, encode=list, classes=(), length=1, remainder=NO, **B
    ),
    "data.datasets.tinyshakespeare tinyshakespeare split": lambda: tinyshakespeare.tinyshakespeare(NO),
    "data.formats.tokenizer Tokenizer.train kind": lambda: tokenizer.Tokenizer.train(["a"], kind=NO),
    "layers.quantize quantized products": lambda: quantize.quantized(MLP((), 1), NO),
    "layers.rope Scaling kind": lambda: rope.frequencies(2, scaling=rope.Scaling(NO, 2.0)),
    "layers.stack rematerialised remat": lambda: stack.rematerialised(MLP, NO),
    "step make_step on_nan": lambda: step.make_step(None, None, on_nan=NO),  # type: ignore[arg-type]
    "tasks.vae vae likelihood": lambda: vae(MLP((), 1), likelihood=NO),
}


def modules() -> Iterator[ModuleType]:
    for part in PARTS:
        top = importlib.import_module(f"jaxmodels.{part}")
        yield top
        for found in pkgutil.walk_packages(getattr(top, "__path__", []), f"{top.__name__}."):
            yield importlib.import_module(found.name)


def functions(module: ModuleType) -> Iterator[tuple[str, Any]]:
    """Public functions and classes, with the methods of these, by name."""
    for name, x in vars(module).items():
        if name.startswith("_") or getattr(x, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(x):
            yield name, x
        elif inspect.isclass(x):
            fields = dataclasses.is_dataclass(x) or hasattr(x, "_fields")
            yield name, x if fields else x.__init__
            for method, f in vars(x).items():
                if not method.startswith("_") and isinstance(f, classmethod | staticmethod):
                    yield f"{name}.{method}", f.__func__
                elif not method.startswith("_") and inspect.isfunction(f):
                    yield f"{name}.{method}", f


def options() -> dict[str, Any]:
    """All that are annotated as a Literal: "module owner name" -> owner."""
    found = {}
    for module in modules():
        for owner, x in functions(module):
            for name in choices.of_fields(x):
                found[f"{module.__name__.removeprefix('jaxmodels.')} {owner} {name}"] = x
    return found


def of_models() -> list[str]:
    return sorted(name for name, x in options().items() if inspect.isclass(x) and issubclass(x, nn.Module))


def test_every_option_of_words_is_known_here():
    assert set(options()) - set(of_models()) == set(CALLS)
    assert len(of_models()) >= 12


@pytest.mark.parametrize("option", CALLS)
def test_a_word_that_no_option_has_is_refused(option):
    with pytest.raises(
        ValueError, match=rf": got {option.split()[-1]}='nonesuch'; expected one of .+\. Do give"
    ):
        CALLS[option]()


@pytest.mark.parametrize("option", of_models())
def test_a_models_words_are_checked_when_it_is_made(option):
    owner, name = options()[option], option.split()[-1]
    needed = {
        f.name: None
        for f in dataclasses.fields(owner)
        if f.default is f.default_factory is dataclasses.MISSING
    }
    with pytest.raises(
        ValueError, match=rf"{owner.__name__}: got {name}='nonesuch'; expected one of .+\. Do give"
    ):
        owner(**{**needed, name: NO})


def test_the_message_says_what_is_nearest():
    with pytest.raises(
        ValueError, match=r"^ResNet: got stem='cifar'; expected one of 'pool', 'plain'\. Do give one of them$"
    ):
        resnet50(classes=2, stem="cifar")
    with pytest.raises(ValueError, match=r"got option='C'; expected one of 'A', 'B'\. Do give one of them"):
        CifarResNet(2, option=NO and "C")  # type: ignore[arg-type]
    with pytest.raises(
        ValueError, match=r"got pool='men'; expected one of 'token', 'mean'\. Do give pool='mean', if that"
    ):
        vit_s(classes=2, patch=4, pool="men")
    with pytest.raises(ValueError, match=r"got remainder='keep'; expected one of 'wrap', 'drop', 'pad'"):
        pipeline.ArrayPipeline({"x": np.zeros(3)}, batch=2, remainder="keep")  # type: ignore[arg-type]
    choices.check("here", "size", 1, Literal[1, 3])
    with pytest.raises(ValueError, match=r"got size=True; expected one of 1, 3"):
        choices.check("here", "size", True, Literal[1, 3])
    assert typing.get_args(choices.of_fields(vit_s.func)["pool"]) == ("token", "mean")
    assert jaxmodels.__version__
