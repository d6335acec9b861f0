"""Classification: softmax cross-entropy over classes.

Dimensions: B batch, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels import choices
from jaxmodels.interfaces import Input, Predictor
from jaxmodels.task import Mean, Requirement, Task
from jaxmodels.tasks.apply import apply, call_options, check_outputs, init_from, table_sizes
from jaxmodels.tasks.ranking import among, first
from jaxmodels.tasks.requirements import inputs_of, labels, segments, weights


def classify(
    model: nn.Module,
    *,
    inputs: str = "image",
    smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    auxiliary: float = 0.0,
) -> Task:
    """Softmax cross-entropy of model(batch[inputs]) on batches of inputs, label (int) and weight.

    weight is 1 for an example and 0 for padding, so a padded batch changes no metric. Wherever the weight is
    above 0 a label must be one of the model's classes; an example of weight 0 counts nowhere.
    smoothing: this share of each label is spread over all classes (arXiv:1512.00567, section 7), in the
    training loss alone. class_weights: of the loss, one for each class, for classes of different frequency;
    the mean is over the sum of the weights. auxiliary: weight of the loss of each auxiliary head of a model
    with a method with_auxiliary, in training (arXiv:1409.4842, section 5). Where a batch has "segments" (BT,
    int; 0 is padding), the model gets them as segments_BT. Where it has "other" (a second label) and "share",
    the target is share x label + (1 - share) x other, as in mixup. "top5" is the part of the examples whose
    class is among the five most probable, for more than five classes; ties count with their expectation. A
    NaN is never right.
    """

    def target(batch: Any, classes: int, smoothing: float) -> jax.Array:
        label_BK = nn.one_hot(batch["label"], classes)
        if "other" in batch:
            share_B1 = batch["share"].astype(jnp.float32)[:, None]
            label_BK = share_B1 * label_BK + (1 - share_B1) * nn.one_hot(batch["other"], classes)
        return optax.smooth_labels(label_BK, smoothing)

    def cross_entropy(logits_BK: jax.Array, target_BK: jax.Array, batch: Any) -> Mean:
        weight_B = batch["weight"]
        if class_weights is not None:
            if len(class_weights) != target_BK.shape[-1]:
                raise ValueError(
                    f"classify: got {len(class_weights)} class weights for {target_BK.shape[-1]} classes; "
                    "expected one for each class. Give as many."
                )
            weight_B = weight_B * (target_BK @ jnp.asarray(class_weights, jnp.float32))
        return Mean.of(optax.softmax_cross_entropy(logits_BK.astype(jnp.float32), target_BK), weight_B)

    def measure(logits_BK: jax.Array, batch: Any, smoothing: float = 0.0) -> dict[str, Mean]:
        classes = check_outputs(logits_BK, "(N, classes)").shape[-1]
        metrics = {"loss": cross_entropy(logits_BK, target(batch, classes, smoothing), batch)}
        metrics["accuracy"] = Mean.of(first(logits_BK, batch["label"]), batch["weight"])
        if classes > 5:
            metrics["top5"] = Mean.of(among(logits_BK, batch["label"], 5), batch["weight"])
        return metrics

    def loss(params, extra, batch, keys_B):
        if not (isinstance(auxiliary, int | float) and auxiliary == 0):
            (logits_BK, others), extra = apply(
                model, params, extra, batch[inputs], keys_B, **call_options(batch), method="with_auxiliary"
            )
        else:
            logits_BK, extra = apply(model, params, extra, batch[inputs], keys_B, **call_options(batch))
            others = ()
        metrics = measure(logits_BK, batch, smoothing)
        total, weight = metrics["loss"]
        for other_BK in others:
            other_target_BK = target(batch, other_BK.shape[-1], smoothing)
            total += auxiliary * cross_entropy(other_BK, other_target_BK, batch).total
        return Mean(total, weight), extra, metrics

    def evaluate(params, extra, batch):
        logits_BK, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        return measure(logits_BK, batch)

    def examine(params, extra, batch):
        logits_BK, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        probability_BK = jax.nn.softmax(logits_BK.astype(jnp.float32))
        padding = {"segments": batch["segments"]} if "segments" in batch else {}
        return {"probability": probability_BK, "label": batch["label"], "input": batch[inputs], **padding}

    def requires(batch, params, extra):
        def run(params, extra, batch):
            return apply(model, params, extra, batch[inputs], None, **call_options(batch))[0]

        logits_BK, tables = table_sizes(run, params, extra, batch)
        classes = check_outputs(logits_BK, "(N, classes)").shape[-1]
        share = Requirement(
            "the share of the first label", "Give a share from 0 to 1", low=0, high=1, shape=()
        )
        return {
            inputs: inputs_of(batch[inputs], tables.get(inputs)),
            "label": labels(classes),
            "weight": weights(),
            "segments": segments(),
            "other": labels(classes),
            "share": share,
        }

    init = init_from(model, inputs, "with_auxiliary" if auxiliary else None)
    return Task(init, loss, evaluate, examine=examine, requires=requires)


def probabilities(model: nn.Module, *, inputs: str = "image") -> Callable[[Any, Any, Any], jax.Array]:
    """(params, extra, batch) to probabilities (BK), for Evaluation.predict; inputs as in classify."""

    def predict(params, extra, batch):
        logits_BK, _ = apply(model, params, extra, batch[inputs], None, **call_options(batch))
        return jax.nn.softmax(logits_BK.astype(jnp.float32))

    return predict


def predictor(
    model: nn.Module,
    classes: Sequence[str] | Callable[[], Sequence[str]],
    *,
    read: Callable[[Any], dict[str, np.ndarray]],
    caption: Callable[[Any, str], np.ndarray] | None = None,
    inputs: str = "image",
    input: Input = "image",
    fields: Sequence[str] = (),
    settings: Callable[[], Mapping[str, Any]] = dict,
) -> Predictor:
    """The Predictor of a classifier, for `jaxmodels predict`.

    classes: their names, or a function that gives them, which is called when they are asked for.
    read(x): a file, text or row as the arrays of one example, prepared as in training, with "segments" where
        training has them. input, fields: what it reads; see Predictor, as of settings.
    caption(path, text): the file's image with a line of text; None for no drawings.
    """
    choices.check("classify.predictor", "input", input, Input)
    known: list[str] = []

    def names() -> list[str]:
        if not known:
            known.extend(classes() if callable(classes) else classes)
        return known

    def report(probability_K: np.ndarray) -> dict[str, Any]:
        order = probability_K.argsort(kind="stable")[::-1][:5]
        best = {names()[i]: round(float(probability_K[i]), 4) for i in order}
        return {
            "class": names()[order[0]],
            "probability": round(float(probability_K[order[0]]), 4),
            "likeliest": best,
        }

    def draw(path: Any, probability_K: np.ndarray) -> np.ndarray:
        assert caption is not None
        best = report(probability_K)
        return caption(path, f"{best['class']} {best['probability']:.1%}")

    def described() -> dict[str, Any]:
        found: dict[str, Any] = {"classes": [str(name) for name in names()], **settings()}
        if dataclasses.is_dataclass(read) and not isinstance(read, type):
            found["preparation"] = dataclasses.asdict(read)
        return found

    drawn = None if caption is None else draw
    predict = probabilities(model, inputs=inputs)
    return Predictor(read, predict, report, drawn, input, tuple(fields), described)
