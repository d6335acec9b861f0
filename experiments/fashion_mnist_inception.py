"""GoogLeNet reduced to 28 x 28 on Fashion-MNIST: six of its nine blocks, at a quarter of their width.

jaxmodels train experiments/fashion_mnist_inception.py
    (JAXMODELS_DATA names the folder that holds fashion_mnist/)

Result: 93.67% test accuracy with 194,446 parameters (published for the full size: 93.7%), 68:17 min beside
other work; one core of an AMD EPYC virtual machine, at 1b65aea.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.augment import flip
from jaxmodels.data.datasets.fashion_mnist import CLASSES, fashion_mnist
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.models.inception import googlenet_28
from jaxmodels.tasks.classify import classify, predictor


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 10
    batch: int = 128
    lr: float = 3e-3  # peak
    smoothing: float = 0.1
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    steps = config.epochs * 60_000 // config.batch
    rate = optim.warmup_cosine(config.lr, warmup=400, steps=steps)
    folder = config.data or None
    model = googlenet_28(10)
    return Experiment(
        task=classify(model, smoothing=config.smoothing),
        optimizer=optim.adamw(rate, weight_decay=0.05),
        train=fashion_mnist("train", batch=config.batch, seed=config.seed, folder=folder, augment=(flip,)),
        evals={"test": fashion_mnist("test", batch=250, folder=folder)},
        steps=steps,
        eval_every=60_000 // config.batch,
        checkpoint_every=60_000 // config.batch,
        seed=config.seed,
        baselines=lambda: {"published, full size": {"test/accuracy": 0.937}},
        predictor=predictor(
            model, CLASSES, read=lambda path: {"image": read_image(path, 28, channels=1)}, caption=captioned
        ),
        target=Target("accuracy", 0.937, "higher", source="published for the full size"),
    )
