"""Vectors of voices: two recordings by one speaker lie close, whatever digit is said (ArcFace).

All six speakers are trained on; the test pairs are of takes that are not. Rooms and
microphones may differ between speakers, and a vector may tell those as well as voices.

jaxmodels train experiments/fsdd_speakers.py   (JAXMODELS_DATA names the folder that holds fsdd/)

Result: equal error rate 0.40% of 6,000 pairs of the test's recordings, takes that are not trained on, in 3:30
min beside much other work; two cores of an AMD EPYC virtual machine, at 76231fa.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from jaxmodels import Evaluation, Experiment, Target, optim
from jaxmodels.data.augment_audio import spec_augment
from jaxmodels.data.datasets.fsdd import RATE, SPEAKERS, fsdd
from jaxmodels.layers.mel import log_mel
from jaxmodels.layers.spectrogram_input import SpectrogramInput
from jaxmodels.models.cnn import CNN
from jaxmodels.scores import verification
from jaxmodels.tasks.metric_learning import arcface, embeddings

HOP, BANDS, PAIRS = 128, 32, 6_000
FEATURES = partial(log_mel, rate=RATE, size=256, hop=HOP, bands=BANDS)


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 8
    batch: int = 60
    lr: float = 2e-3  # peak
    margin: float = 0.3  # radians
    fit: bool = False  # train without the validation part, to choose settings on it; else on all but the test
    data: str = ""  # folder of fsdd.tar.gz; by default fsdd in $JAXMODELS_DATA or the user's cache


def score(predictions, batches) -> dict[str, float]:
    """The equal error rate of pairs, half of them by one speaker."""
    speaker = np.concatenate([batch["label"] for batch in batches])
    scores, same = verification.pairs(np.concatenate(predictions), speaker, PAIRS)
    return {"equal_error_rate": verification.equal_error_rate(scores, same)}


def of_speakers(batch, _=None):
    """The batch with the speaker as its label."""
    return {**batch, "label": batch["speaker"]}


def build(config: Config) -> Experiment:
    folder, split = config.data or None, "fit" if config.fit else "train"
    epoch = (2400 if config.fit else 2700) // config.batch
    steps = config.epochs * epoch
    rate = optim.warmup_cosine(config.lr, warmup=epoch, steps=steps)
    masks = (spec_augment(frequency=5, time=8, masks=(1, 1)),)
    network = CNN(0, channels=(16, 32, 48), hidden=64, batch_norm=True, dropout=0.2)
    model = SpectrogramInput(network, FEATURES, HOP, normalize="level", changes=masks, layout="image")
    held = fsdd("validation" if config.fit else "test", 100, folder=folder, augment=(of_speakers,))
    test = Evaluation(held, predict=embeddings(model, inputs="audio", part="model"), score=score)
    return Experiment(
        task=arcface(model, len(SPEAKERS), margin=config.margin, scale=15.0, inputs="audio"),
        optimizer=optim.adamw(rate, weight_decay=0.02),
        train=fsdd(split, config.batch, config.seed, folder=folder, augment=(of_speakers,)),
        evals={"validation" if config.fit else "test": test},
        steps=steps,
        eval_every=steps,
        checkpoint_every=4 * epoch,
        seed=config.seed,
        target=Target("equal_error_rate", 0.004, "lower", source="the first run") if not config.fit else None,
    )
