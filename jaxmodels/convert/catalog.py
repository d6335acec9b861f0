"""The models of the library as a table: named sizes, parameters, inputs and the weights that they read.

A family without named sizes has one row, in a size that an experiment uses.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.convert.families import FAMILIES
from jaxmodels.layers.table_embedding import Field
from jaxmodels.models import (
    alexnet,
    autoencoder,
    bert,
    cnn,
    conformer,
    convnext,
    dbn,
    deepar,
    deepfm,
    detr,
    dit,
    dlinear,
    dlrm,
    ds_cnn,
    factorization,
    fastspeech,
    fcos,
    ft_transformer,
    gan,
    gpt,
    hifi_gan,
    inception,
    inception_time,
    llama,
    mae,
    mixer,
    mlp,
    mobilenet,
    moe,
    mtcnn,
    ncf,
    patchtst,
    perceptron,
    rbm,
    resnet,
    rnn,
    sasrec,
    t5,
    tabular_resnet,
    tcn,
    textcnn,
    transformer,
    two_tower,
    unet,
    vae,
    vit,
    vits,
    voice_conversion,
    wavenet,
    whisper,
)

LLAMA2C = "llama2.c"  # read by load_pretrained beside the layouts of FAMILIES


class Model(NamedTuple):
    """A row of the table. source: layouts of weights that it reads, "" for our own checkpoints alone."""

    family: str
    name: str
    parameters: int
    input: str
    source: str


class _Input(NamedTuple):
    """The arguments of a model's call."""

    words: str
    arguments: tuple[Any, ...]
    named: Mapping[str, Any] = {}
    classes: int = 1000  # of a classifier


class _Row(NamedTuple):
    """A family: its module, models beside its named sizes, and their input, by name where one differs."""

    module: ModuleType
    input: _Input
    more: Mapping[str, Callable[[], nn.Module]] = {}
    inputs: Mapping[str, _Input] = {}


def _shape(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, *shape), dtype)


def _image(height: int, channels: int = 3, **named: Any) -> _Input:
    words = f"image {height} x {height} x {channels}" + (", time" if named else "")
    return _Input(words, (_shape(height, height, channels),), named, 1000 if height > 32 else 10)


TEXT = _Input("tokens", (_shape(2, dtype=jnp.int32),))
TEXTS = _Input("tokens of two texts", (_shape(2, dtype=jnp.int32), _shape(2, dtype=jnp.int32)))
HEARD = _Input("frames of 80 features, tokens", (_shape(4, 80), _shape(2, dtype=jnp.int32)))
PAIR = _Input("user and item", (_shape(2, dtype=jnp.int32),))
CRITEO = _Input("26 categories, 13 numbers", (_shape(26, dtype=jnp.int32),), {"numbers_BN": _shape(13)})
COLUMNS = (Field("number"),) * 8
TABLE = _Input("8 numbers of a table", (_shape(8),))
TIME = {"time_B": _shape()}
SMALL = {name: _image(28, 1) for name in ("alexnet_28", "googlenet_28", "vit_28")}


def _detector() -> nn.Module:
    backbone = resnet.ResNet(0, (2, 2, 2, 2), resnet.Basic, widths=(32, 64, 128, 256), stem_width=24)
    return fcos.FCOS(backbone, 3, ("stage_2", "stage_3", "stage_4"), fcos.FeaturePyramid(64), width=64)


def _belief() -> nn.Module:
    return dbn.DBN((rbm.RBM(784, 500), rbm.RBM(500, 500), rbm.RBM(500, 2000)))  # of Hinton et al., 2006


def _masked() -> nn.Module:
    block = vit.Block(heads=4, hidden_width=96)
    return mae.MAE(vit.vit_28(classes=0, pool="mean"), block, outputs=16)


ROWS = (
    _Row(mlp, _image(28, 1), more={"mlp": lambda: mlp.MLP((128, 128), 10)}),
    _Row(
        cnn,
        _image(28, 1),
        more={"cnn": lambda: cnn.CNN(10), "lenet": cnn.LeNet},
        inputs={"lenet": _image(32, 1)},
    ),
    _Row(alexnet, _image(224), inputs=SMALL),
    _Row(inception, _image(224), inputs={**SMALL, "inception_v3": _image(299)}),
    _Row(
        resnet,
        _image(224),
        inputs={name: _image(32) for name in vars(resnet) if name.startswith(("cifar_", "wrn"))},
    ),
    _Row(mobilenet, _image(224)),
    _Row(
        ds_cnn,
        _Input("49 frames of 10 features", (_shape(49, 10, 1),), classes=12),
        inputs={"mobilenet_v1": _image(224)},
    ),
    _Row(convnext, _image(224)),
    _Row(vit, _image(224), inputs=SMALL),
    _Row(mixer, _image(224)),
    _Row(
        mae,
        _image(28, 1, kept_Bn=_shape(12, dtype=jnp.int32))._replace(words="image 28 x 28 x 1, patches"),
        more={"mae_28": _masked},
    ),
    _Row(fcos, _Input("image 240 x 320 x 3", (_shape(240, 320, 3),)), more={"fcos": _detector}),
    _Row(detr, _image(224), more={"detr": lambda: detr.DETR(resnet.resnet50(0), "stage_4", 91)}),
    _Row(mtcnn, _image(12), inputs={"rnet": _image(24), "onet": _image(48)}),
    _Row(vae, _image(28, 1), more={"vae": lambda: vae.VAE((28, 28, 1))}),
    _Row(perceptron, _Input("2 features", (_shape(2),)), more={"perceptron": perceptron.Perceptron}),
    _Row(autoencoder, _image(28, 1), more={"autoencoder": lambda: autoencoder.Autoencoder(784)}),
    _Row(rbm, _image(28, 1), more={"rbm": lambda: rbm.RBM(784, 500)}),
    _Row(dbn, _image(28, 1), more={"dbn": _belief}),
    _Row(
        gan,
        _Input("code of 64", (_shape(64),)),
        more={"generator": lambda: gan.Generator((28, 28, 1)), "discriminator": gan.Discriminator},
        inputs={"discriminator": _image(28, 1)},
    ),
    _Row(unet, _image(28, 1, **TIME), more={"unet": unet.UNet}),
    _Row(dit, _image(32, 4, **TIME), inputs={"dit_28": _image(28, 1, **TIME)}),
    _Row(
        dlinear,
        _Input("336 steps of 7 series", (_shape(336, 7),)),
        more={"dlinear": lambda: dlinear.DLinear(96)},
    ),
    _Row(
        patchtst,
        _Input("336 steps of 7 series", (_shape(336, 7),)),
        more={
            "patchtst": lambda: patchtst.PatchTST(96),
            "patchtst_small": lambda: patchtst.patchtst_small(96),
        },
    ),
    _Row(
        tcn,
        _Input("336 steps of 7 series", (_shape(336, 7),)),
        more={"tcn_forecaster": lambda: tcn.TCNForecaster(96)},
    ),
    _Row(deepar, _Input("168 steps", (_shape(168, 1),)), more={"deepar": lambda: deepar.DeepAR(24)}),
    _Row(ft_transformer, TABLE, more={"ft_transformer": lambda: ft_transformer.FTTransformer(COLUMNS, 1)}),
    _Row(tabular_resnet, TABLE, more={"tabular_resnet": lambda: tabular_resnet.TabularResNet(COLUMNS, 1)}),
    _Row(inception_time, _Input("150 steps", (_shape(150, 1),), classes=2)),
    _Row(conformer, _Input("frames of 80 features", (_shape(8, 80),), classes=32)),
    _Row(
        voice_conversion,
        _Input("frames of 64 features, speaker", (_shape(8, 64),), {"speaker_B": _shape(dtype=jnp.int32)}),
        more={"voice_converter": lambda: voice_conversion.VoiceConverter(6)},
    ),
    _Row(wavenet, _Input("samples", (_shape(8, dtype=jnp.int32),))),
    _Row(
        whisper,
        HEARD,
        inputs={
            name: HEARD._replace(
                words="frames of 128 features, tokens", arguments=(_shape(4, 128), *HEARD.arguments[1:])
            )
            for name in vars(whisper)
            if name.startswith("whisper_large_v3")
        },
    ),
    _Row(
        fastspeech,
        _Input("labels", (_shape(2, dtype=jnp.int32),)),
        more={"fastspeech": lambda: fastspeech.FastSpeech(80)},
    ),
    _Row(hifi_gan, _Input("frames of 80 features", (_shape(4, 80),))),
    _Row(
        vits,
        _Input("phonemes", (_shape(2, dtype=jnp.int32),)),
        more={"vits": lambda: vits.VITS(178, hifi_gan.HiFiGAN(last_bias=False))},
    ),
    _Row(textcnn, TEXT, more={"textcnn": lambda: textcnn.TextCNN(20_000, 2)}),
    _Row(rnn, TEXT, more={"rnn_classifier": lambda: rnn.RNNClassifier(20_000, 2, 128)}),
    _Row(transformer, TEXTS),
    _Row(bert, TEXT),
    _Row(t5, TEXTS),
    _Row(gpt, TEXT),
    _Row(llama, TEXT),
    _Row(moe, TEXT),
    _Row(
        factorization,
        PAIR,
        more={
            "matrix_factorization": lambda: factorization.MatrixFactorization(671, 9066, 64),
            "factorization_machine": lambda: factorization.FactorizationMachine((671, 9066), 64),
        },
    ),
    _Row(ncf, PAIR, more={"neumf": lambda: ncf.NeuMF(671, 9066)}),
    _Row(
        two_tower,
        _Input("user, item", (_shape(dtype=jnp.int32), _shape(dtype=jnp.int32))),
        more={"two_tower": lambda: two_tower.TwoTower(two_tower.Tower(671, 64), two_tower.Tower(9066, 64))},
    ),
    _Row(dlrm, CRITEO, more={"dlrm": lambda: dlrm.DLRM((1000,) * 26)}),
    _Row(deepfm, CRITEO, more={"deepfm": lambda: deepfm.DeepFM((1000,) * 26)}),
    _Row(
        sasrec,
        _Input("items", (_shape(2, dtype=jnp.int32),)),
        more={"sasrec": lambda: sasrec.SASRec(23_715, 50)},
    ),
)


def models(families: Sequence[str] = ()) -> Iterator[Model]:
    """The rows of the table, or of some families, each counted when it is asked for; no array is made."""
    known = [_family(row) for row in ROWS]
    if unknown := [name for name in families if name not in known]:
        raise ValueError(
            f"list --models: got {unknown[0]!r}; expected families among {', '.join(known)}. Name one of "
            "those."
        )
    for row in ROWS:
        if not families or _family(row) in families:
            yield from counted(row, sizes_of(row))


def counted(row: _Row, sizes: Mapping[str, Callable[[], nn.Module]]) -> Iterator[Model]:
    """The rows of some models of a family."""
    for name, make in sizes.items():
        model, inputs = make(), row.inputs.get(name, row.input)
        shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs.arguments, **inputs.named)
        count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes["params"]))
        yield Model(_family(row), name, count, inputs.words, _source(model))


def _family(row: _Row) -> str:
    return row.module.__name__.rpartition(".")[2]


def sizes_of(row: _Row) -> dict[str, Callable[[], nn.Module]]:
    """The models of a family by name: its named sizes, completed by the number of classes, and the others."""
    found: dict[str, Callable[[], nn.Module]] = {}
    for name, size in vars(row.module).items():
        if isinstance(size, partial) and not name.startswith("_"):
            classes = {"classes": row.inputs.get(name, row.input).classes}
            has_classes = "classes" in inspect.signature(size.func).parameters
            complete = partial(size, **(classes if has_classes else {}))
            if _is_complete(complete):
                found[name] = complete
    return {**found, **row.more}


def _is_complete(size: partial[Any]) -> bool:
    """Whether no argument is missing; a common part of several sizes, such as gpt2, lacks their widths."""
    try:
        size()
    except TypeError:
        return False
    return True


def _source(model: nn.Module) -> str:
    layouts = [family.layout for family in FAMILIES if isinstance(model, family.modules)]
    plain = isinstance(model, llama.Llama) and not (model.biases or model.head_norm or model.window)
    own = [LLAMA2C] if plain else []
    return ", ".join(dict.fromkeys([*layouts, *own]))
