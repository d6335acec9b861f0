"""Text to mel spectrogram on three minutes of one voice: FastSpeech, heard by Griffin and Lim.

jaxmodels train experiments/ljspeech_mel.py

Over-fitted by design: 28 sentences of LJ Speech (the public domain) are learned by heart, with durations
from the alignment that is found while training; four more are the test, of whose words most were never
heard. The sounds of both, by predicted durations, are in the run's folder, sounds/, and in its report.
With --whisper FOLDER, weights of Whisper, learned/wer and test/wer say what it understands of them.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import Evaluation, Experiment, optim
from jaxmodels.data import locate
from jaxmodels.data.bucketing import Buckets
from jaxmodels.data.formats.audio import wav
from jaxmodels.data.formats.audio_file import read_audio
from jaxmodels.data.recordings import RecordingPipeline, join_audio
from jaxmodels.layers.mel import inverse_mel, log_mel
from jaxmodels.layers.spectrogram import griffin_lim
from jaxmodels.models.fastspeech import FastSpeech
from jaxmodels.scores.error_rates import plain, word_error_rate
from jaxmodels.tasks.text_to_mel import speak, text_to_mel

RATE, SIZE, HOP, BANDS = 22_050, 1024, 256, 80
LENGTHS = (88_064, 155_648, 222_208)  # samples of a batch; the longest clip has 10 seconds
LABELS = 200
LETTERS = " abcdefghijklmnopqrstuvwxyz'.,;:-?"
HELD_OUT = (5, 13, 21, 29)  # rows of the table
FEATURES = {"rate": RATE, "size": SIZE}


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 1_000
    batch: int = 4
    width: int = 128
    depth: int = 2  # of the encoder, and of the decoder
    lr: float = 2e-3  # peak
    whisper: str = ""  # a folder of Whisper's weights
    data: str = ""  # folder; by default ljspeech32 in $JAXMODELS_DATA or the user's cache


def encode(text):
    return [LETTERS.index(x) + 1 for x in text.lower() if x in LETTERS]


def decode(labels):
    return "".join(LETTERS[i - 1] for i in labels if i)


def arrays(folder, split):
    lines = (Path(folder) / "metadata.csv").read_text().splitlines()
    rows = [i for i in range(len(lines)) if (i in HELD_OUT) == (split == "test")]
    sounds, labels = [], np.zeros((len(rows), LABELS), np.int32)
    for row, i in enumerate(rows):
        name, _, text = lines[i].split("|")
        audio = read_audio(Path(folder) / "wavs" / f"{name}.wav", rate=RATE)
        sounds.append((audio.clip(-1, 1 - 2**-15) * 2**15).round().astype(np.int16))
        labels[row, : len(encode(text))] = encode(text)
    return {**join_audio(sounds), "labels": labels}


def features(audio_BS):
    """Log-mel frames, about -1 to 1."""
    return (log_mel(audio_BS, bands=BANDS, hop=HOP, floor=1e-5, **FEATURES) + 4) / 4


@jax.jit
def heard(mel_BTM):
    """The sounds of features, by Griffin and Lim."""
    power_BTF = inverse_mel(jnp.exp(mel_BTM * 4 - 4), **FEATURES)
    return griffin_lim(jnp.sqrt(power_BTF), hop=HOP, iterations=60)


def sounds(predictions, batches):
    """The sound and the text of each prediction."""
    found = []
    for said, batch in zip(predictions, batches, strict=True):
        audio = np.asarray(heard(said["mel"]))
        for audio_S, segments, labels in zip(audio, said["segments"], batch["labels"], strict=False):
            found.append((audio_S[: segments.sum() * HOP], decode(labels)))
    return found


def understood(config, predictions, batches):
    """The word error rate of Whisper, where its weights are given."""
    if not config.whisper:
        return {}
    import soxr

    from jaxmodels.inference.transcriber import open_transcriber

    transcriber = open_transcriber(config.whisper)
    pairs = [
        (plain(text), plain(transcriber(soxr.resample(audio, RATE, 16_000)).text))
        for audio, text in sounds(predictions, batches)
    ]
    return {"wer": word_error_rate(*zip(*pairs, strict=True))}


def played(predictions, batches):
    """The first four sounds, and the first clip itself from its spectrogram alone."""
    found = {
        f"{i + 1}-{text[:24].strip()}": wav(x, RATE)
        for i, (x, text) in enumerate(sounds(predictions, batches)[:4])
    }
    batch = batches[0]
    clip = batch["audio"][:1]
    again = np.asarray(heard(features(clip)))[0][: batch["segments"][0].sum()]
    return {**found, "1-recording-by-griffin-lim": wav(again, RATE)}


def build(config: Config) -> Experiment:
    folder = locate.folder("ljspeech32", config.data or None)

    def data(split, batch, seed=None):
        spec = {"labels": ((LABELS,), np.dtype(np.int32))}
        open = partial(arrays, folder, split)
        return RecordingPipeline(open, length=LENGTHS[-1], batch=batch, seed=seed, spec=spec)

    model = FastSpeech(
        len(LETTERS) + 1,
        BANDS,
        width=config.width,
        depth=config.depth,
        hidden_width=4 * config.width,
        kernel=5,
        duration_width=config.width,
    )
    speech = speak(model, frames=LENGTHS[-1] // HOP)
    evaluation = partial(Evaluation, predict=speech, score=partial(understood, config), pictures=played)
    rate = optim.warmup_cosine(config.lr, warmup=config.steps // 10, steps=config.steps)
    return Experiment(
        task=text_to_mel(model, features, hop=HOP),
        optimizer=optim.adamw(rate, weight_decay=0.01, clip=1.0),
        train=Buckets(data("train", config.batch, config.seed), lengths=LENGTHS, pool=7),
        evals={"learned": evaluation(data("train", 4)), "test": evaluation(data("test", 4))},
        steps=config.steps,
        checkpoint_every=200,
        seed=config.seed,
    )
