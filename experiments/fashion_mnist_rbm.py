"""A restricted Boltzmann machine on Fashion-MNIST by persistent contrastive divergence.

jaxmodels train experiments/fashion_mnist_rbm.py
python experiments/fashion_mnist_rbm.py runs/fashion_mnist_rbm        log-likelihood per test image

Grey values are probabilities of black and white pixels, drawn anew at every step. The second command
estimates the partition function by annealed importance sampling, with its 95% interval. Samples of long
chains and the weights of the hidden units are in the run's folder, pictures/.

Result of --epochs 6: log Z 677.1 (95%: 676.7 to 677.4), so -250.0 nats a test image of drawn pixels (-250.3
to -249.6; training images -248.4), 4:16 min beside other work; two cores of an AMD EPYC virtual machine, at
81357ff. The whole run was not measured.
"""

import sys
from dataclasses import dataclass

import numpy as np

from jaxmodels import Evaluation, Experiment, open_run, optim
from jaxmodels.data.datasets.fashion_mnist import fashion_mnist, numbered
from jaxmodels.data.drawing import grid
from jaxmodels.models.rbm import RBM, filters
from jaxmodels.tasks.contrastive_divergence import contrastive_divergence, persistent, samples
from jaxmodels.training.persistent_step import persistent_step

SHAPE = 28, 28, 1


@dataclass(frozen=True, kw_only=True)
class Config:
    seed: int = 0
    epochs: int = 15
    batch: int = 100
    lr: float = 0.05  # falls in a line to 0
    decay: float = 1e-4  # L2 of the weights
    hidden: int = 500
    chains: int = 100  # 0: contrastive divergence from the data, not persistent
    gibbs: int = 1  # steps of sampling for each update
    data: str = ""  # folder of the files; by default fashion_mnist in $JAXMODELS_DATA or the user's cache


def build(config: Config) -> Experiment:
    steps = config.epochs * 60_000 // config.batch
    model = RBM(784, config.hidden)
    how = {"steps": config.gibbs, "pixels": "probabilities"}
    pcd = persistent(model, chains=config.chains, **how) if config.chains else None
    sample = samples(model)

    def predict(params, extra, batch):
        drawn = sample(params, extra, batch).reshape(-1, *SHAPE)
        return {"samples": drawn, "filters": filters(params, SHAPE)[batch["index"]]}

    return Experiment(
        task=pcd.task if pcd else contrastive_divergence(model, **how),
        optimizer=optim.sgd(lambda n: config.lr * (1 - n / steps), weight_decay=config.decay),
        make_step=persistent_step(pcd.move) if pcd else None,
        train=fashion_mnist("train", batch=config.batch, seed=config.seed, folder=config.data or None),
        evals={
            "test": fashion_mnist("test", batch=500, folder=config.data or None),
            "drawn": Evaluation(
                numbered("test", 100, 100, folder=config.data or None),
                predict=predict,
                pictures=lambda made, batches: {
                    name: grid(made[0][name], 10, zoom=2) for name in ("samples", "filters")
                },
            ),
        },
        steps=steps,
        eval_every=max(1, steps // 4),
        checkpoint_every=max(1, steps // 10),
        seed=config.seed,
    )


def main(run: str, chains: int = 100, temperatures: int = 5_000) -> None:
    """Prints log p of the training and test images, in nats an image, by annealed importance sampling."""
    import jax

    from jaxmodels.tasks.annealed_importance import annealed_importance

    experiment, state, _ = open_run(run)
    model = RBM(784, state.params["weight"].shape[1])
    images = np.concatenate([experiment.train.rows(n, 0, 100)["image"] for n in range(100)])
    mean_V = images.reshape(len(images), -1).mean(0).clip(1e-3, 1 - 1e-3)
    log_z = annealed_importance(
        model,
        state.params,
        jax.random.key(0),
        chains=chains,
        temperatures=temperatures,
        base_V=np.log(mean_V / (1 - mean_V)),
    )
    print(f"log Z {log_z.value:.2f} (95%: {log_z.low:.2f} to {log_z.high:.2f}), {chains} chains")
    evaluate = jax.jit(experiment.task.evaluate)
    parts = {"train": experiment.train, "test": experiment.evals["test"]}
    for name, data in parts.items():
        total = 0.0
        for n in range(count := 10_000 // data.batch):
            found = evaluate(state.params, state.extra, data.rows(n, 0, data.batch))["free_energy"]
            total += float(found.total / found.weight) / count
        low, high = (-total - end for end in (log_z.high, log_z.low))
        print(f"{name}: {-total - log_z.value:.2f} nats an image (95%: {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main(*sys.argv[1:2])
