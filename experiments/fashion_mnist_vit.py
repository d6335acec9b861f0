"""A vision transformer of 0.2 million parameters on Fashion-MNIST: 49 patches of 4 x 4.

jaxmodels train experiments/fashion_mnist_vit.py
    (JAXMODELS_DATA names the folder that holds fashion_mnist/)

Result: 92.87% test accuracy with 205,834 parameters (published for as many: 92.3%), 140 min, stopped once and
gone on with; two cores of an Intel Xeon virtual machine, beside other work, at 3a6ac82. Flips alone, 20
epochs: 91.67%.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.augment import crop, flip
from jaxmodels.data.datasets.fashion_mnist import CLASSES, fashion_mnist
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.models.vit import vit_28
from jaxmodels.tasks.classify import classify, predictor


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 30
    batch: int = 32
    lr: float = 5e-3  # peak, of Muon
    adam_lr: float = 1e-3
    smoothing: float = 0.1
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    steps = config.epochs * 60_000 // config.batch
    rates = [optim.warmup_cosine(peak, warmup=1000, steps=steps) for peak in (config.lr, config.adam_lr)]
    folder = config.data or None
    model = vit_28(10, unroll=6)
    return Experiment(
        task=classify(model, smoothing=config.smoothing),
        rules=model.rules(),
        optimizer=optim.muon(rates[0], adam_rate=rates[1], weight_decay=0.05),
        train=fashion_mnist(
            "train", batch=config.batch, seed=config.seed, folder=folder, augment=(flip, crop(1))
        ),
        evals={"test": fashion_mnist("test", batch=250, folder=folder)},
        steps=steps,
        eval_every=60_000 // config.batch,
        checkpoint_every=60_000 // config.batch,
        seed=config.seed,
        baselines=lambda: {"published, as many parameters": {"test/accuracy": 0.923}},
        predictor=predictor(
            model, CLASSES, read=lambda path: {"image": read_image(path, 28, channels=1)}, caption=captioned
        ),
        target=Target("accuracy", 0.923, "higher", source="published for as many parameters"),
    )
