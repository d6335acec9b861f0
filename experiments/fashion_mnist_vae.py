"""A variational autoencoder on Fashion-MNIST, and images that it makes up.

jaxmodels train experiments/fashion_mnist_vae.py --classifier runs/fashion_mnist_cnn

The classifier is a finished run of fashion_mnist_cnn.py: by its features test/frechet says how far made
images are from real ones (comparable with the baseline and the other experiments here, not with published
FIDs); without, it is left out. The samples are in the run's folder, pictures/.

Result: test/frechet 54.6 (real against real: 0.14), reconstruction 219.9 and divergence 16.1 nats an image;
24:35 min beside other work; two cores of an AMD EPYC virtual machine, at d605575.
"""

from dataclasses import dataclass

import jax
import numpy as np

from jaxmodels import Evaluation, Experiment, Target, open_run, optim
from jaxmodels.data.datasets.fashion_mnist import fashion_mnist, numbered
from jaxmodels.data.drawing import grid
from jaxmodels.models.cnn import CNN
from jaxmodels.models.vae import VAE
from jaxmodels.scores import frechet
from jaxmodels.tasks.vae import sample, vae

SHAPE = 28, 28, 1


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 20
    batch: int = 128
    lr: float = 2e-3  # peak
    code: int = 16
    samples: int = 10_000  # for the distance
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


def build(config: Config) -> Experiment:
    steps = config.epochs * 60_000 // config.batch
    rate = optim.warmup_cosine(config.lr, warmup=200, steps=steps)
    model = VAE(SHAPE, code=config.code)
    test = Evaluation(
        numbered("test", config.samples, 250, folder=config.data or None),
        predict=sample(model),
        score=frechet.score(features_of(config.classifier)) if config.classifier else None,
        pictures=lambda made, batches: {"samples": grid(made[0][:100], 10, zoom=2)},
    )
    return Experiment(
        task=vae(model),
        optimizer=optim.adam(rate, clip=1_000.0),
        train=fashion_mnist("train", batch=config.batch, seed=config.seed, folder=config.data or None),
        evals={"test": test},
        steps=steps,
        eval_every=max(1, steps // 4),
        checkpoint_every=max(1, steps // 10),
        seed=config.seed,
        baselines=lambda: baselines(config),
        target=Target("frechet", 54.6, "lower", source="the first run") if config.classifier else None,
    )
