"""Classifiers of what a report reads out or plays: texts of two lengths, one of HTML, or high and low tones.

Dimensions: N examples, S samples.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from jaxmodels import Display, Experiment, optim
from jaxmodels.data.bucketing import Buckets, TextPipeline, join
from jaxmodels.data.formats.audio import wav
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.mlp import MLP
from jaxmodels.models.textcnn import TextCNN
from jaxmodels.tasks.classify import classify

WORDS = ("zeroth", "<b>good</b>", "bad", "film")
TEXTS = [[1, 3], [2, 3], [1, 3, 3, 3, 3, 1], [2, 3, 3, 2]]
RATE, SAMPLES = 8_000, 4_000


@dataclass(frozen=True, kw_only=True)
class Config:
    sense: str = "text"


def texts() -> Buckets:
    label = np.array([0, 1, 0, 1], np.int32)
    return Buckets(TextPipeline({**join(TEXTS), "label": label}, length=8, batch=2), lengths=(4, 8))


def tones() -> ArrayPipeline:
    label_N = np.arange(4, dtype=np.int32) % 2
    pitch_N1 = np.array([440, 880])[label_N, None]
    tone_NS = 0.5 * np.sin(2 * np.pi * pitch_N1 * np.arange(SAMPLES) / RATE)
    return ArrayPipeline({"audio": tone_NS.astype(np.float32), "label": label_N}, batch=2)


def build(config: Config) -> Experiment:
    if config.sense == "text":
        data, task = texts(), classify(TextCNN(len(WORDS), 2, width=4, windows=(1,), maps=4), inputs="inputs")
        display = Display(lambda words_T: " ".join(WORDS[i] for i in words_T), lambda: ("happy", "sad"))
    else:
        data, task = tones(), classify(MLP((), 2), inputs="audio")
        display = Display(lambda audio_S: wav(audio_S, RATE), lambda: ("low", "high"))
    return Experiment(
        task=task, optimizer=optim.sgd(0.1), train=data, evals={"test": data}, steps=2, display=display
    )
