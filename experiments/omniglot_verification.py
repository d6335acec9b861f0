"""Handwritten characters told apart by one example: embeddings trained on eight alphabets, tested on others.

jaxmodels train experiments/omniglot_verification.py   (JAXMODELS_DATA names the folder that holds omniglot/)

runs/error is the 20-way one-shot error of Lake et al.'s 20 runs, whose alphabets are in neither background
set: siamese networks 8.0% and people 4.5%, published for training on 30 alphabets. The pairs under runs/ are
of the same drawings; their threshold is chosen on the two drawers of the known alphabets that are held out.

Result: 20-way one-shot error 5.5%; of pairs of drawings, equal error rate 3.0% and 97.3% right at that
threshold; 33 min beside other work, stopped and resumed once; two cores of an AMD EPYC virtual machine, at
5f8a946.
"""

from dataclasses import dataclass

import numpy as np

from jaxmodels import Evaluation, Experiment, Target, optim
from jaxmodels.data.augment import warp
from jaxmodels.data.datasets.omniglot import characters, one_shot_runs
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.models.cnn import CNN
from jaxmodels.scores import classification, verification
from jaxmodels.tasks.metric_learning import arcface, embeddings

CLASSES, HELD = 242, 2  # characters; drawers that are not trained on
SPEC = {"image": ((35, 35, 1), np.dtype(np.float32)), "label": ((), np.dtype(np.int32))}


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    steps: int = 4_000
    batch: int = 128
    lr: float = 2e-3  # peak
    margin: float = 0.3
    data: str = ""  # folder of the zip files; by default omniglot in $JAXMODELS_DATA or the user's cache


def scale(batch):
    return {**batch, "image": batch["image"].astype(np.float32) * np.float32(1 / 255)}


def turned(arrays, times: int = 4) -> dict[str, np.ndarray]:
    """Each character turned by quarters is another (arXiv:1605.06065), and so is each in the mirror."""
    image, label = arrays["image"], arrays["label"]
    views = [np.rot90(side, i, (1, 2)) for side in (image, image[:, :, ::-1]) for i in range(times)]
    labels = [label + CLASSES * i for i in range(2 * times)]
    return {"image": np.concatenate(views), "label": np.concatenate(labels)}


def build(config: Config) -> Experiment:
    folder = config.data or None
    rate = optim.warmup_cosine(config.lr, warmup=200, steps=config.steps)
    model = CNN(128, channels=(48, 96, 192, 192), hidden=0, batch_norm=True)
    threshold = {}  # of the known alphabets' held out drawers; they are evaluated first

    def known(held: bool):
        arrays = characters(folder=folder)
        rows = (arrays["drawer"] < HELD) == held
        return {name: arrays[name][rows] for name in ("image", "label")}

    def runs():
        found = one_shot_runs(folder=folder)
        images = np.concatenate([np.concatenate([run.train, run.test]) for run in found])
        return {"image": images, "label": np.full(len(images), -1, np.int32)}

    def score_known(predictions, batches):
        scores, same = verification.pairs(
            np.concatenate(predictions), np.concatenate([b["label"] for b in batches]), 4_000
        )
        threshold["known"] = verification.best_threshold(scores, same)
        return {
            "auc": classification.auc(scores, same),
            "equal_error_rate": verification.equal_error_rate(scores, same),
        }

    def score_runs(predictions, batches):
        x_RSD = np.concatenate(predictions).reshape(20, 2, 20, -1)
        answers = [run.answer for run in one_shot_runs(folder=folder)]
        errors = [
            verification.one_shot_error(train, test, a)
            for (train, test), a in zip(x_RSD, answers, strict=True)
        ]
        labels = np.concatenate(
            [np.stack([20 * i + np.arange(20), 20 * i + a]) for i, a in enumerate(answers)]
        ).reshape(-1)
        scores, same = verification.pairs(x_RSD.reshape(800, -1), labels, 4_000)
        return {
            "error": float(np.mean(errors)),
            "auc": classification.auc(scores, same),
            "equal_error_rate": verification.equal_error_rate(scores, same),
            "pair_accuracy": verification.accuracy(scores, same, threshold.get("known", 0.5)),
        }

    def evaluation(arrays, score):
        predict = embeddings(model, part="model")
        return Evaluation(
            ArrayPipeline(arrays, batch=100, prepare=scale, spec=SPEC), predict=predict, score=score
        )

    changes = (warp(angle=15, shear=0.25, scale=0.25, shift=0.08),)
    return Experiment(
        task=arcface(model, 8 * CLASSES, margin=config.margin),
        optimizer=optim.adamw(rate, weight_decay=0.05, clip=5.0),
        train=ArrayPipeline(
            lambda: turned(known(held=False)),
            batch=config.batch,
            seed=config.seed,
            prepare=scale,
            augment=changes,
            spec=SPEC,
        ),
        evals={
            "known": evaluation(lambda: known(held=True), score_known),
            "runs": evaluation(runs, score_runs),
        },
        steps=config.steps,
        eval_every=max(1, config.steps // 8),
        checkpoint_every=max(1, config.steps // 8),
        seed=config.seed,
        baselines=lambda: {"pixels": {"runs/error": pixels(folder)}, "chance": {"runs/error": 0.95}},
        target=Target("error", 0.08, "lower", split="runs", source="published for siamese networks"),
    )


def pixels(folder) -> float:
    """The error of comparing the drawings' pixels by cosine."""

    def flat(x):
        return x.reshape(len(x), -1) / np.linalg.norm(
            x.reshape(len(x), -1).astype(float), axis=1, keepdims=True
        )

    return float(
        np.mean(
            [
                verification.one_shot_error(flat(run.train), flat(run.test), run.answer)
                for run in one_shot_runs(folder=folder)
            ]
        )
    )
