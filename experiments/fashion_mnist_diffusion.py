"""Diffusion on Fashion-MNIST by a U-Net on squares of 2 x 2 pixels, or by a transformer (--model dit).

jaxmodels train experiments/fashion_mnist_diffusion.py --classifier runs/fashion_mnist_cnn

The classifier is a finished run of fashion_mnist_cnn.py: by its features test/frechet says how far made
images are from real ones (comparable with the baseline and the other experiments here, not with published
FIDs); without, it is left out. The samples are in the run's folder, pictures/: a class in each row.

Result: test/frechet 16.3 (real against real, as few images: 0.73), 49:33 min beside other work; one core of
an AMD EPYC virtual machine, at 1b65aea. The transformer was not measured.
"""

from dataclasses import dataclass
from typing import Literal

import jax
import numpy as np

from jaxmodels import Evaluation, Experiment, Target, open_run, optim
from jaxmodels.data.datasets.fashion_mnist import fashion_mnist, numbered
from jaxmodels.data.drawing import grid
from jaxmodels.models.cnn import CNN
from jaxmodels.models.dit import dit_28
from jaxmodels.models.unet import UNet
from jaxmodels.scores import frechet
from jaxmodels.tasks.diffusion import diffusion, sample

SHAPE = 28, 28, 1


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    model: Literal["unet", "dit"] = "unet"
    steps: int = 2_500
    batch: int = 64
    lr: float = 2e-3  # peak
    sampling: int = 40  # steps of DDIM
    guidance: float = 1.0  # above 1 the classes come out more clearly, and less varied
    samples: int = 2_000  # for the distance
    classifier: str = ""  # folder of a run of fashion_mnist_cnn.py
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def features_of(run):
    """What the trained classifier of fashion_mnist_cnn.py finds in images, before its last layer."""
    _, state, _ = open_run(run)
    model = CNN(0, channels=(24, 48, 64), hidden=64, batch_norm=True)
    apply = jax.jit(lambda x: model.apply({"params": state.params, **state.extra}, x))
    return lambda x: np.concatenate([apply(part) for part in np.split(x, range(500, len(x), 500))])


def baselines(config):
    """The distance of as many training images from the test images: the best possible value."""
    if not config.classifier:
        return {}
    features = features_of(config.classifier)
    parts = [
        numbered(split, config.samples, config.samples, folder=config.data or None)
        for split in ("train", "test")
    ]
    real = [features(part.rows(0, 0, config.samples)["image"]) for part in parts]
    return {"real against real": {"test/frechet": frechet.frechet(*real)}}


def by_class(made, batches):
    """Ten images of each class, a class in each row."""
    made, label = np.concatenate(made), np.concatenate([batch["label"] for batch in batches])
    return grid(np.concatenate([made[label == k][:10] for k in range(10)]), 10, zoom=2)


def build(config: Config) -> Experiment:
    rate = optim.warmup_cosine(config.lr, warmup=200, steps=config.steps)
    model = UNet(channels=(48, 96), patch=2, classes=10) if config.model == "unet" else dit_28(classes=10)
    predict = sample(model, SHAPE, steps=config.sampling, guidance=config.guidance)
    test = Evaluation(
        numbered("test", config.samples, 250, folder=config.data or None),
        predict=predict,
        score=frechet.score(features_of(config.classifier)) if config.classifier else None,
        pictures=lambda made, batches: {"samples": by_class(made, batches)},
    )
    return Experiment(
        task=diffusion(model),
        optimizer=optim.with_ema(optim.adamw(rate, weight_decay=0.01, clip=1.0), 0.999),
        train=fashion_mnist("train", batch=config.batch, seed=config.seed, folder=config.data or None),
        evals={"test": test},
        steps=config.steps,
        checkpoint_every=max(1, config.steps // 10),
        seed=config.seed,
        baselines=lambda: baselines(config),
        target=Target("frechet", 16.3, "lower", source="the first run") if config.classifier else None,
    )
