"""AlexNet reduced to 28 x 28 on Fashion-MNIST: its layers with smaller kernels, strides and widths.

jaxmodels train experiments/fashion_mnist_alexnet.py
    (JAXMODELS_DATA names the folder that holds fashion_mnist/)

Result: 92.74% test accuracy with 576,714 parameters (published for the full size: 93.5%) in 18:23 min beside
other work; two cores of an AMD EPYC virtual machine, at ae58190.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.augment import flip
from jaxmodels.data.datasets.fashion_mnist import CLASSES, fashion_mnist
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.models.alexnet import alexnet_28
from jaxmodels.tasks.classify import classify, predictor


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 12
    batch: int = 128
    lr: float = 1e-3  # peak
    dropout: float = 0.3
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    steps = config.epochs * 60_000 // config.batch
    rate = optim.warmup_cosine(config.lr, warmup=400, steps=steps)
    folder = config.data or None
    model = alexnet_28(10, dropout=config.dropout)
    return Experiment(
        task=classify(model),
        optimizer=optim.adamw(rate, weight_decay=0.02),
        train=fashion_mnist("train", batch=config.batch, seed=config.seed, folder=folder, augment=(flip,)),
        evals={"test": fashion_mnist("test", batch=250, folder=folder)},
        steps=steps,
        eval_every=60_000 // config.batch,
        checkpoint_every=60_000 // config.batch,
        seed=config.seed,
        baselines=lambda: {"published, full size": {"test/accuracy": 0.935}},
        predictor=predictor(
            model, CLASSES, read=lambda path: {"image": read_image(path, 28, channels=1)}, caption=captioned
        ),
        target=Target("accuracy", 0.935, "higher", source="published for the full size"),
    )
