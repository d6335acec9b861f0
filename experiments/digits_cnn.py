"""A convolutional network with batch normalisation on handwritten digits.

jaxmodels train experiments/digits_cnn.py

Result: 100.0% test accuracy (360 images) in 9 s, start and compilation included;
two cores of an AMD EPYC virtual machine, at 282204d.
"""

from dataclasses import dataclass

from jaxmodels import Experiment, Target, optim
from jaxmodels.data.datasets.digits import digits
from jaxmodels.data.drawing import captioned
from jaxmodels.data.formats.images import read_image
from jaxmodels.models.cnn import CNN
from jaxmodels.tasks.classify import classify, predictor

DIGITS = "0123456789"


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 600
    batch: int = 128
    lr: float = 3e-3  # peak, after 50 steps of warm-up


def build(config: Config) -> Experiment:
    model = CNN(10, channels=(32, 64), hidden=128, batch_norm=True, dropout=0.3)
    rate = optim.warmup_cosine(config.lr, warmup=50, steps=config.steps)
    return Experiment(
        task=classify(model),
        optimizer=optim.adamw(rate, weight_decay=0.01),
        train=digits("train", batch=config.batch, seed=config.seed),
        evals={"test": digits("test", batch=config.batch)},
        steps=config.steps,
        eval_every=200,
        seed=config.seed,
        predictor=predictor(
            model, DIGITS, read=lambda path: {"image": read_image(path, 8, channels=1)}, caption=captioned
        ),
        target=Target("accuracy", 0.99, "higher"),
    )
