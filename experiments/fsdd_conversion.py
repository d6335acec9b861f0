"""Digits in another voice: an autoencoder with a content bottleneck, and Griffin-Lim for the wave.

jaxmodels train experiments/fsdd_conversion.py --recogniser runs/fsdd_cnn --speakers runs/fsdd_speakers

The recogniser and the speakers are finished runs of fsdd_cnn.py and fsdd_speakers.py, which hear the waves of
converted test recordings; without, their metrics are left out. A recording's take chooses one of the five
other speakers. The test recordings themselves, through the same spectra and Griffin-Lim, are named as well as
they were before: 98.3% of the digits, 99.7% of the speakers. In the run's folder, sounds/, and in its report:
recordings, each before what it became.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import Evaluation, Experiment, open_run, optim
from jaxmodels.data.datasets.fsdd import RATE, SPEAKERS, fsdd
from jaxmodels.data.formats.audio import wav
from jaxmodels.layers.mel import log_mel, mel_filters, mel_to_magnitude
from jaxmodels.layers.spectrogram import griffin_lim
from jaxmodels.models.voice_conversion import VoiceConverter
from jaxmodels.tasks.voice_conversion import converted, voice_conversion

SIZE, HOP, BANDS = 256, 64, 64


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 16
    batch: int = 30
    width: int = 128
    code: int = 8
    noise: float = 0.3
    warp: float = 0.2
    lr: float = 3e-3  # peak
    fit: bool = False  # train without the validation part, to choose settings on it; else on all but the test
    recogniser: str = ""  # folder of a run of fsdd_cnn.py
    speakers: str = ""  # folder of a run of fsdd_speakers.py
    data: str = ""  # folder of fsdd.tar.gz; by default fsdd in $JAXMODELS_DATA or the user's cache


def features(audio_BS):
    """Log-mel spectra (BTF) of about deviation 1."""
    return (log_mel(audio_BS, rate=RATE, size=SIZE, hop=HOP, bands=BANDS) + 8) / 3


def sound(x_BTF, samples):
    """Waves (BS) with such features, by Griffin and Lim."""
    magnitude = mel_to_magnitude(jnp.exp(3 * x_BTF - 8), mel_filters(rate=RATE, size=SIZE, bands=BANDS))
    return griffin_lim(magnitude, hop=HOP, length=samples)


def with_target(batch, _=None):
    """The batch with another speaker to convert each recording to."""
    n = len(SPEAKERS)
    return {**batch, "target": ((batch["speaker"] + 1 + batch["take"] % (n - 1)) % n).astype(np.int32)}


def judged(run, audio_BS, batch, label):
    """The part of the sounds that a finished run names as `label`."""
    experiment, state, _ = open_run(run)
    rows = {"audio": audio_BS, "segments": batch["segments"], "label": label}
    rows["weight"] = np.ones(len(label), np.float32)
    accuracy = jax.jit(experiment.task.evaluate)(state.params, state.extra, rows)["accuracy"]
    return float(accuracy.total / accuracy.weight)


def score(config, made, batches):
    """Which converted recordings are named as the same digit, and as the target speaker."""
    audio, batch = np.concatenate(made), {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    judges = {
        "digits_kept": (config.recogniser, "label"),
        "target_named": (config.speakers, "target"),
        "source_named": (config.speakers, "speaker"),
    }
    return {name: judged(run, audio, batch, batch[label]) for name, (run, label) in judges.items() if run}


def examples(made, batches):
    """For each speaker a few of the recordings, each followed by what it became."""
    audio, batch = np.concatenate(made), {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    found = {}
    for k, name in enumerate(SPEAKERS):
        parts = []
        for i in np.flatnonzero(batch["speaker"] == k)[::10]:
            n = batch["segments"][i].sum() + RATE // 5
            parts += [batch["audio"][i][:n], audio[i][:n]]
        if parts:
            found[f"converted-{name}"] = wav(np.concatenate(parts), RATE)
    return found


def build(config: Config) -> Experiment:
    epoch = (2400 if config.fit else 2700) // config.batch
    rate = optim.warmup_cosine(config.lr, warmup=epoch // 2, steps=config.epochs * epoch)
    model = VoiceConverter(len(SPEAKERS), config.width, code=config.code, noise=config.noise)
    data = partial(fsdd, folder=config.data or None)
    held = "validation" if config.fit else "test"
    test = Evaluation(
        data(held, 100, augment=(with_target,)),
        predict=converted(model, features, HOP, sound),
        score=partial(score, config),
        pictures=examples,
    )
    return Experiment(
        task=voice_conversion(model, features, HOP, len(SPEAKERS), warp=config.warp),
        optimizer=optim.with_ema(optim.adamw(rate, weight_decay=0.01, clip=1.0), 0.99),
        train=data("fit" if config.fit else "train", config.batch, config.seed),
        evals={held: test},
        steps=config.epochs * epoch,
        checkpoint_every=4 * epoch,
        seed=config.seed,
    )
