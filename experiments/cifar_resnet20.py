"""ResNet-20 on CIFAR-10, as section 4.2 of the paper trains it (arXiv:1512.03385).

jaxmodels train experiments/cifar_resnet20.py
    (JAXMODELS_DATA names the folder that holds cifar10/cifar-10-binary.tar.gz)
jaxmodels evaluate experiments/cifar_resnet20.py --weights resnet20-12fca82f.th
    (of akamaster/pytorch_resnet_cifar10, whose statistics of the channels are used here too)

Published: 91.25% test accuracy with 0.27 million parameters, after 64,000 steps. Not run here; made for an
    accelerator.
"""

from dataclasses import dataclass

import optax

from jaxmodels import Experiment, Target, optim
from jaxmodels.convert.load import load_weights
from jaxmodels.data.augment import crop, flip
from jaxmodels.data.datasets.cifar10 import CLASSES, cifar10
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.data.normalize import IMAGENET
from jaxmodels.models.resnet import cifar_resnet20
from jaxmodels.tasks.classify import classify, predictor


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 64_000
    batch: int = 128
    lr: float = 0.1
    decay: float = 1e-4
    data: str = ""  # folder of the files; by default cifar10 in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    model = cifar_resnet20(10)
    rate = optax.piecewise_constant_schedule(config.lr, {config.steps // 2: 0.1, config.steps * 3 // 4: 0.1})
    folder = config.data or None

    def read(path):
        return {"image": read_image(path, 32, normalize=IMAGENET)}

    return Experiment(
        task=classify(model),
        optimizer=optim.sgd(rate, momentum=0.9, weight_decay=config.decay),
        train=cifar10(
            "train", config.batch, config.seed, folder=folder, augment=(flip, crop(4)), normalize=IMAGENET
        ),
        evals={"test": cifar10("test", 400, folder=folder, normalize=IMAGENET)},
        weights=lambda path: load_weights(model, path, layout="akamaster"),
        steps=config.steps,
        eval_every=max(1, config.steps // 16),
        checkpoint_every=max(1, config.steps // 16),
        seed=config.seed,
        predictor=predictor(model, CLASSES, read=read, caption=captioned),
        baselines=lambda: {"published": {"test/accuracy": 0.9125}},
        target=Target("accuracy", 0.9125, "higher", source="published, arXiv:1512.03385"),
    )
