"""DS-CNN, the network of MLPerf Tiny for keywords, on the benchmark's features.

jaxmodels evaluate experiments/kws_ds_cnn.py --weights ds_cnn.npz   (the benchmark's own weights)
jaxmodels train experiments/kws_ds_cnn.py --no-folded   (from random parameters, on 800 of the 1,000)

Result: 90.10% of all 1,000 by the benchmark's weights (its floor: 90%; 90.0% in its own runtime), in 11 s;
Python 3.11.7, two cores of an AMD EPYC virtual machine that did other work beside.
"""

from dataclasses import dataclass

from jaxmodels import Evaluation, Experiment, optim
from jaxmodels.convert.load import load_weights
from jaxmodels.data.datasets.kws import CLASSES, kws
from jaxmodels.models.ds_cnn import ds_cnn_s
from jaxmodels.scores.classification import scores
from jaxmodels.tasks.classify import classify, probabilities


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 30
    batch: int = 50
    lr: float = 5e-3  # peak
    folded: bool = True  # biases in place of batch normalisation, as the benchmark's weights have
    data: str = ""  # folder of kws01.npz; by default kws in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    folder, steps = config.data or None, config.epochs * 800 // config.batch
    rate = optim.warmup_cosine(config.lr, warmup=steps // 10, steps=steps)
    model = ds_cnn_s(classes=len(CLASSES), norm="folded" if config.folded else "batch", dropout=0.2)
    test = kws("all" if config.folded else "test", 100, folder=folder)
    return Experiment(
        task=classify(model),
        optimizer=optim.adamw(rate, weight_decay=0.02),
        train=kws("train", config.batch, config.seed, folder=folder),
        evals={"all" if config.folded else "fifth": Evaluation(test, probabilities(model), scores)},
        steps=steps,
        eval_every=steps,
        checkpoint_every=steps,
        seed=config.seed,
        weights=lambda path: load_weights(model, path, layout="mlperf-tiny"),
        baselines=lambda: {"MLPerf Tiny's floor": {"all/accuracy": 0.9}},
    )
