"""A small residual network on Fashion-MNIST: 16 channels at 28 x 28, 64 at 14 x 14, 128 at 7 x 7.

jaxmodels train experiments/fashion_mnist_resnet.py
    (JAXMODELS_DATA names the folder that holds fashion_mnist/)

Result: 94.46% test accuracy with 653,178 parameters (published for ResNet-18, of 11 million: 94.9%) in 80 min
beside other work; two cores of an AMD EPYC virtual machine, at 6a8526e.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.augment import flip
from jaxmodels.data.datasets.fashion_mnist import CLASSES, fashion_mnist
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.models.resnet import Basic, ResNet
from jaxmodels.tasks.classify import classify, predictor


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 14
    batch: int = 128
    lr: float = 0.02  # peak, of Muon
    adam_lr: float = 2e-3
    smoothing: float = 0.1
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    steps = config.epochs * 60_000 // config.batch
    rates = [optim.warmup_cosine(peak, warmup=200, steps=steps) for peak in (config.lr, config.adam_lr)]
    folder = config.data or None
    model = ResNet(10, (1, 2, 2), Basic, widths=(16, 64, 128), stem="plain", stem_width=16, dropout=0.2)
    return Experiment(
        task=classify(model, smoothing=config.smoothing),
        optimizer=optim.muon(rates[0], adam_rate=rates[1], weight_decay=0.02),
        train=fashion_mnist("train", batch=config.batch, seed=config.seed, folder=folder, augment=(flip,)),
        evals={"test": fashion_mnist("test", batch=250, folder=folder)},
        steps=steps,
        eval_every=60_000 // config.batch,
        checkpoint_every=60_000 // config.batch,
        seed=config.seed,
        baselines=lambda: {"published, ResNet-18": {"test/accuracy": 0.949}},
        predictor=predictor(
            model, CLASSES, read=lambda path: {"image": read_image(path, 28, channels=1)}, caption=captioned
        ),
        target=Target(
            "accuracy", 0.949, "higher", source="published for ResNet-18, of 11 million parameters"
        ),
    )
