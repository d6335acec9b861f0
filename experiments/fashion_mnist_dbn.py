"""A deep belief network on Fashion-MNIST, and what its weights are worth to a classifier with few labels.

jaxmodels train experiments/fashion_mnist_dbn.py
jaxmodels train experiments/fashion_mnist_dbn.py --stage up-down --pretrained runs/fashion_mnist_dbn
python experiments/fashion_mnist_dbn.py runs/fashion_mnist_dbn            a bound on log p of a test image
python experiments/fashion_mnist_dbn.py runs/fashion_mnist_dbn 600 5      with 600 labels, over 5 seeds

The first trains three machines greedily without labels, the second fine-tunes them by the up-down algorithm,
and the last trains the same network of sigmoids by back-propagation, from random weights and from theirs;
alone: --stage labels --start pretrained --labels 600 --steps 1000. The images with labels are of all classes
alike, and drawn by the seed.

Result of the first: at least -252.8 nats a test image of drawn pixels (95% by annealed importance sampling:
-253.0 to -252.6), 4:22 min; after the second -240.2 (-240.6 to -239.6), 1:50 min. With 600 labels test
accuracy is 77.2% +- 1.1% from random and 79.6% +- 0.5% from pretrained weights (means and 95% intervals of 5
seeds of one pretraining), 2.4 +- 0.6 points better, 1:11 min. With 60,000 and three passes it is 85.1% +-
0.3% and 86.7% +- 0.2% (3 seeds; RUN 60000 3), 1.6 +- 0.4 points better; three passes are few.
The rate, 1e-3, was chosen on 10,000 held-out training images with 600 labels. Two cores of an AMD EPYC
virtual machine, very busy, at 81357ff.
"""

import sys
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import flax.linen as nn
import jax
import numpy as np

from jaxmodels import Evaluation, Experiment, open_run, optim, train
from jaxmodels.alternating import optimizers
from jaxmodels.data.datasets.fashion_mnist import SPEC, fashion_mnist, numbered
from jaxmodels.data.drawing import grid
from jaxmodels.data.normalize import from_bytes
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.data.split import part_of
from jaxmodels.models.dbn import DBN, as_mlp, untied
from jaxmodels.models.mlp import MLP
from jaxmodels.models.rbm import RBM
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.greedy import greedy
from jaxmodels.tasks.pretrained import start_from
from jaxmodels.tasks.up_down import dreams, up_down, variational_bound
from jaxmodels.training.greedy_step import greedy_step

SHAPE = 28, 28, 1


@dataclass(frozen=True, kw_only=True)
class Config:
    stage: Literal["greedy", "up-down", "labels"] = "greedy"
    seed: int = 0
    width: int = 256  # of the first two hidden layers
    top: int = 512
    batch: int = 100
    epochs: int = 4  # of each machine, or of the up-down algorithm
    lr: float = 0.1  # of the machines
    pretrained: str = ""  # a run's folder: of the first stage, for the others
    start: Literal["random", "pretrained"] = "random"  # of the classifier
    labels: int = 60_000  # training images whose labels the classifier sees
    held_out: int = 0  # training images that are no part of them, to choose on
    steps: int = 3_000  # of the classifier
    label_lr: float = 1e-3  # of the classifier, peak
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def network(config, weights="tied"):
    sizes = (784, config.width, config.width, config.top)
    return DBN(tuple(RBM(*pair) for pair in pairwise(sizes)), weights)


def without_labels(config, model):
    """What the first two stages have in common."""
    folder = config.data or None
    drawn = Evaluation(
        numbered("test", 100, 100, folder=folder),
        predict=dreams(model),
        pictures=lambda made, batches: {"dreams": grid(made[0].reshape(-1, *SHAPE), 10, zoom=2)},
    )
    return {
        "train": fashion_mnist("train", batch=config.batch, seed=config.seed, folder=folder),
        "evals": {"test": fashion_mnist("test", batch=500, folder=folder), "drawn": drawn},
        "seed": config.seed,
    }


def greedily(config):
    model, passes = network(config), config.epochs * 60_000 // config.batch
    task, losses = greedy(model, pixels="probabilities")
    rate = partial(optim.sgd, config.lr, momentum=0.5, weight_decay=2e-4)
    return Experiment(
        task=task,
        optimizer=optimizers(**{name: rate() for name in losses}),
        make_step=greedy_step(losses, [passes] * len(losses)),
        steps=passes * len(losses),
        **without_labels(config, model),
    )


def by_up_down(config):
    model = network(config, "untied")
    _, state, _ = open_run(config.pretrained)
    steps = config.epochs * 60_000 // config.batch
    return Experiment(
        task=start_from(up_down(model), untied(state.params)),
        optimizer=optim.sgd(lambda n: config.lr / 2 * (1 - n / steps)),
        steps=steps,
        **without_labels(config, model),
    )


def labelled(config, number):
    """Images of a part: 1 what is held out to choose on, 2 those with labels; of each class as many."""
    arrays = fashion_mnist("train", batch=1, folder=config.data or None).arrays
    part_N = np.zeros(60_000, int)
    if config.held_out:
        part_N = part_of(60_000, (config.held_out,), strata=arrays["label"])
    if number == 1:
        rows = part_N == 1
    else:
        rows = np.flatnonzero(part_N == 0)
        strata = arrays["label"][rows]
        if config.labels < len(rows):
            rows = rows[part_of(len(rows), (config.labels,), seed=config.seed, strata=strata) == 1]
    return {name: x[rows] for name, x in arrays.items()}


def with_labels(config):
    model = MLP((config.width, config.width, config.top), 10, nn.sigmoid)
    task = classify(model)
    if config.start == "pretrained":
        with jax.ensure_compile_time_eval():  # a sweep traces this
            task = start_from(task, as_mlp(open_run(config.pretrained)[1].params))
    arrays = partial(ArrayPipeline, spec=SPEC, prepare=from_bytes)
    if config.held_out:
        name, data = "validation", arrays(lambda: labelled(config, 1), batch=500)
    else:
        name, data = "test", fashion_mnist("test", batch=500, folder=config.data or None)
    return Experiment(
        task=task,
        optimizer=optim.adam(optim.warmup_cosine(config.label_lr, warmup=100, steps=config.steps)),
        train=arrays(lambda: labelled(config, 2), batch=config.batch, seed=config.seed),
        evals={name: data},
        steps=config.steps,
        seed=config.seed,
    )


def build(config: Config) -> Experiment:
    if config.pretrained == "" and (config.stage == "up-down" or config.start == "pretrained"):
        raise ValueError(
            "fashion_mnist_dbn: got no --pretrained; expected the folder of a run of the first stage. Train "
            "one"
        )
    return {"greedy": greedily, "up-down": by_up_down, "labels": with_labels}[config.stage](config)


def main(run: str, chains: int = 100, temperatures: int = 5_000) -> None:
    """Prints a lower bound on log p of the test images, in nats an image, by annealed importance sampling."""
    from jaxmodels.tasks.annealed_importance import annealed_importance

    experiment, state, _ = open_run(run)
    params = state.params
    sizes = [params[f"machines_{n}"]["weight"].shape for n in range(3)]
    model = DBN(tuple(RBM(*size) for size in sizes), "untied" if "generative_0" in params else "tied")
    log_z = annealed_importance(
        model.machines[-1],
        params["machines_2"],
        jax.random.key(0),
        chains=chains,
        temperatures=temperatures,
    )
    print(f"log Z {log_z.value:.2f} (95%: {log_z.low:.2f} to {log_z.high:.2f}), {chains} chains")
    bound, data = jax.jit(variational_bound(model)), experiment.evals["test"]
    found = []
    for n in range(20):
        keys = jax.random.split(jax.random.key(n), 500)
        found.append(np.asarray(bound(params, data.rows(n, 0, 500)["image"], keys)))
    mean = float(np.mean(found))
    low, high = mean - log_z.high, mean - log_z.low
    print(f"test: at least {mean - log_z.value:.2f} nats an image (95%: {low:.2f} to {high:.2f})")


def compare(run: str, labels: int, seeds: int) -> None:
    """Prints test accuracies from random and from pretrained weights, over seeds, with 95% intervals."""
    found = {}
    for start in ("random", "pretrained"):
        options = {"stage": "labels", "pretrained": run, "start": start, "labels": labels}
        steps = 1_000 if labels < 6_000 else 1_800
        configs = [Config(**options, steps=steps, seed=seed) for seed in range(seeds)]
        found[start] = np.array([train(build(config)).metrics["test/accuracy"] for config in configs])
        print(f"{start}: {shown(found[start])} {found[start].round(4).tolist()}", flush=True)
    print(f"pretrained - random: {shown(found['pretrained'] - found['random'])}")


def shown(values):
    """Mean and 95% interval by Student's t."""
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    return f"{values.mean():.4f} +- {half:.4f}"


if __name__ == "__main__":
    compare(sys.argv[1], *map(int, sys.argv[2:4])) if len(sys.argv) > 3 else main(sys.argv[1])
