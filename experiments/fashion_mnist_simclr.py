"""SimCLR on Fashion-MNIST: a small residual network that learns from images without labels.

jaxmodels train experiments/fashion_mnist_simclr.py
    (JAXMODELS_DATA names the folder that holds fashion_mnist/)

test/probe is the accuracy of a linear classifier on the features, which saw 10,000 labels, and
test/neighbours that of a vote of the 20 nearest of them; beside it stands the same of the untrained encoder.

Result: probe 82.6%, 21.1 points above the untrained encoder's 61.5%, neighbours 79.9% (untrained 47.6%),
38:46 min beside other work; one core of an AMD EPYC virtual machine, at 1b65aea.
"""

from dataclasses import dataclass

from jaxmodels import Evaluation, Experiment, Target, keys, optim
from jaxmodels.data.augment import color, flip, resized_crop
from jaxmodels.data.datasets.fashion_mnist import fashion_mnist, half_known
from jaxmodels.models.resnet import Basic, ResNet
from jaxmodels.scores import probes
from jaxmodels.tasks.augmented import changed
from jaxmodels.tasks.projection import Projected, encoded, untrained_features
from jaxmodels.tasks.simclr import simclr

ENCODER = ResNet(0, (1, 1, 1), Basic, widths=(16, 48, 96), stem="plain", stem_width=16)
CHANGES = (resized_crop((0.25, 1.0)), flip, color(0.5, 0.5, 0.0))


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 4
    batch: int = 256
    lr: float = 2e-3  # peak
    temperature: float = 0.2
    probed: int = 10_000  # labels that the probe sees, and test images
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def untrained(config):
    """The same probe on the same encoder with its first, random parameters."""
    rows = 2 * config.probed
    data = half_known(config.probed, rows, folder=config.data or None).rows(0, 0, rows)
    features = untrained_features(ENCODER, keys.root(config.seed), data["image"])
    accuracies = probes.score([features], [data])
    return {"untrained": {f"test/{name}": accuracy for name, accuracy in accuracies.items()}}


def build(config: Config) -> Experiment:
    steps = config.epochs * 60_000 // config.batch
    rate = optim.warmup_cosine(config.lr, warmup=steps // 20, steps=steps)
    test = half_known(config.probed, 250, folder=config.data or None)
    return Experiment(
        task=simclr(
            Projected(ENCODER),
            lambda image, keys: changed(image, keys, CHANGES),
            temperature=config.temperature,
        ),
        optimizer=optim.adamw(rate, weight_decay=0.01),
        train=fashion_mnist("train", batch=config.batch, seed=config.seed, folder=config.data or None),
        evals={"test": Evaluation(test, predict=encoded(ENCODER), score=probes.score)},
        steps=steps,
        eval_every=max(1, steps // 3),
        checkpoint_every=max(1, steps // 12),
        seed=config.seed,
        baselines=lambda: untrained(config),
        target=Target("probe", 0.615, "higher", source="the untrained encoder"),
    )
