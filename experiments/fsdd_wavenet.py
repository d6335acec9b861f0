"""WaveNet speaks the ten digits by six speakers, sample by sample, at 8 kHz.

jaxmodels train experiments/fsdd_wavenet.py --recogniser runs/fsdd_cnn --speakers runs/fsdd_speakers

The recogniser and the speakers are finished runs of fsdd_cnn.py and fsdd_speakers.py, which judge what was
generated; without, their metrics are left out. Each generated digit has the digit, the speaker and the
duration of a test recording: the model knows where in the recording it is. They are in the run's folder,
sounds/, and in its report: the digits by a speaker one after the other.
Beside test/bits_per_sample stand baselines over the same mu-law levels: their frequencies, and linear
prediction with Laplace-distributed errors whose scale follows the last ones: 7.17 and 5.42 bits a sample.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import Evaluation, Experiment, open_run, optim
from jaxmodels.data.bucketing import Buckets
from jaxmodels.data.datasets.fsdd import RATE, SPEAKERS, SPEC, recordings
from jaxmodels.data.formats.audio import wav
from jaxmodels.data.recordings import RecordingPipeline
from jaxmodels.layers.mu_law import inverse_mu_law, mu_law
from jaxmodels.models.wavenet import WaveNet
from jaxmodels.tasks.waveform import next_sample, sample

HOP = 80  # samples of a frame of conditions
LENGTHS = (3_200, 4_800, RATE)  # samples of a batch
ORDER = 16  # of linear prediction


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 2_000
    batch: int = 4
    width: int = 32
    skip: int = 64
    stacks: int = 2  # of the dilations 1, 2, 4, ..., 256
    lr: float = 4e-3  # peak
    temperature: float = 0.9  # of generated samples
    recogniser: str = ""  # folder of a run of fsdd_cnn.py
    speakers: str = ""  # folder of a run of fsdd_speakers.py
    data: str = ""  # folder of fsdd.tar.gz; by default fsdd in $JAXMODELS_DATA or the user's cache


def frame_positions(segments_BS):
    """Where each frame is in its recording (BLF): cosines of the fraction, time from the start and the
    end."""
    L = segments_BS.shape[1] // HOP
    count_B1 = jnp.maximum(segments_BS.sum(1, keepdims=True) / HOP, 1)
    at_BL = jnp.broadcast_to(jnp.arange(L) + 0.5, (len(segments_BS), L))
    fraction_BL = jnp.minimum(at_BL / count_B1, 1)
    waves = [jnp.cos(jnp.pi * k * fraction_BL) for k in range(1, 13)]
    edges = [jnp.exp(-at_BL / 5), jnp.exp(-jnp.maximum(count_B1 - at_BL, 0) / 5)]
    length = jnp.broadcast_to(count_B1 / 50, at_BL.shape)
    return jnp.stack([*waves, *edges, length], -1)


def conditioned(batch):
    """The batch with what the model is conditioned on."""
    chosen_B2 = jnp.stack([batch["label"], batch["speaker"]], 1)
    return {**batch, "categories": chosen_B2, "frames": frame_positions(batch["segments"])}


def judged(run, audio_BS, batch, label):
    """The part of the sounds that a finished run names as `label`."""
    experiment, state, _ = open_run(run)
    rows = {"audio": audio_BS, "segments": batch["segments"], "label": label}
    rows["weight"] = np.ones(len(label), np.float32)
    accuracy = jax.jit(experiment.task.evaluate)(state.params, state.extra, rows)["accuracy"]
    return float(accuracy.total / accuracy.weight)


def score(config, made, batches):
    """Which of the generated digits, and which speakers, are named right."""
    audio, batch = np.concatenate(made), {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    judges = {"digits_named": (config.recogniser, "label"), "speakers_named": (config.speakers, "speaker")}
    return {name: judged(run, audio, batch, batch[label]) for name, (run, label) in judges.items() if run}


def by_speaker(made, batches):
    """The first of each generated digit, a WAV file by speaker."""
    audio, batch = np.concatenate(made), {k: np.concatenate([b[k] for b in batches]) for k in batches[0]}
    found = {}
    for k, name in enumerate(SPEAKERS):
        rows = [
            np.flatnonzero((batch["speaker"] == k) & (batch["label"] == digit))[:1] for digit in range(10)
        ]
        parts = [audio[i][: batch["segments"][i].sum() + RATE // 10] for row in rows for i in row]
        if parts:
            found[f"generated-{name}"] = wav(np.concatenate(parts), RATE)
    return found


def baselines(config):
    """Bits of a sample by the levels' frequencies, and by linear prediction; fitted to the training part."""
    parts = {}
    for split in ("train", "test"):
        bank = recordings(split, folder=config.data or None)
        sounds = np.split(bank["audio"].astype(np.float64) / 2**15, bank["offsets"][1:-1])
        parts[split] = np.concatenate([np.pad(sound, (ORDER, 0)) for sound in sounds])
    levels = {split: np.asarray(mu_law(jnp.asarray(x, jnp.float32))) for split, x in parts.items()}
    chance = (np.bincount(levels["train"], minlength=256) + 1) / (len(levels["train"]) + 256)
    x, after = (np.lib.stride_tricks.sliding_window_view(parts[split], ORDER + 1) for split in parts)
    weights = np.linalg.lstsq(x[::4, :-1], x[::4, -1], rcond=None)[0]
    error, predicted = after[:, -1] - after[:, :-1] @ weights, after[:, :-1] @ weights
    total = np.concatenate([[0], np.cumsum(np.abs(error))])
    start = np.maximum(np.arange(len(error)) - 32, 0)
    scale = (total[np.arange(len(error))] - total[start]) / np.maximum(
        np.arange(len(error)) - start, 1
    ) + 1e-4
    edges = np.asarray(inverse_mu_law(jnp.arange(255) + 0.5), np.float64)
    edges = np.concatenate([[-np.inf], edges, [np.inf]])
    level = levels["test"][ORDER:]

    def below(edge):
        z = (edge - predicted) / scale
        return np.where(z < 0, np.exp(np.minimum(z, 0)) / 2, 1 - np.exp(-np.maximum(z, 0)) / 2)

    likely = 0.98 * (below(edges[level + 1]) - below(edges[level])) + 0.02 * chance[level]
    return {
        "frequencies of the levels": {"test/bits_per_sample": float(-np.log2(chance[level]).mean())},
        f"linear prediction of order {ORDER}": {"test/bits_per_sample": float(-np.log2(likely).mean())},
    }


def build(config: Config) -> Experiment:
    def data(split, batch, seed=None):
        def open():
            arrays = recordings(split, folder=config.data or None)
            return {**arrays, "index": np.arange(len(arrays["label"]), dtype=np.int32)}

        spec = {**SPEC, "index": ((), np.dtype(np.int32))}
        return RecordingPipeline(open, length=LENGTHS[-1], batch=batch, seed=seed, spec=spec)

    dilations = config.stacks * tuple(2**i for i in range(9))
    model = WaveNet(dilations, config.width, config.skip, categories=(10, 6), hop=HOP, condition=128)
    plain = next_sample(model)
    task = plain._replace(
        init=lambda key, batch: plain.init(key, conditioned(batch)),
        loss=lambda params, extra, batch, keys_B: plain.loss(params, extra, conditioned(batch), keys_B),
        evaluate=lambda params, extra, batch: plain.evaluate(params, extra, conditioned(batch)),
    )
    speak = sample(model, LENGTHS[-1], temperature=config.temperature)
    test = Evaluation(
        data("test", 100),
        predict=lambda params, extra, batch: (
            speak(params, extra, conditioned(batch)) * (batch["segments"] > 0)
        ),
        score=partial(score, config),
        pictures=by_speaker,
    )
    rate = optim.warmup_cosine(config.lr, warmup=config.steps // 15, steps=config.steps)
    return Experiment(
        task=task,
        optimizer=optim.with_ema(optim.adamw(rate, weight_decay=0.01, clip=1.0), 0.99),
        train=Buckets(data("train", config.batch, config.seed), lengths=LENGTHS, pool=32),
        evals={"test": test},
        steps=config.steps,
        checkpoint_every=250,
        seed=config.seed,
        baselines=partial(baselines, config),
    )
