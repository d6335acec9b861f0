"""Classification: softmax cross-entropy over classes.

Dimensions: B batch, K classes.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import optax

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from


def classify(model: nn.Module, *, inputs: str = "image", smoothing: float = 0.0) -> Task:
    """Softmax cross-entropy of model(batch[inputs]) on batches of inputs, label (int) and weight.

    weight is 1 for an example and 0 for padding, so a padded batch changes no metric. smoothing moves that share of each
    label to all classes alike (arXiv:1512.00567, section 7), in the training loss alone. Where a batch has "segments" (BT,
    int; 0 is padding), the model gets them as segments_BT.
    """

    def options(batch: Any) -> dict[str, Any]:
        return {"segments_BT": batch["segments"]} if "segments" in batch else {}

    def measure(logits_BK: Any, batch: Any, smoothing: float = 0.0) -> dict[str, Mean]:
        label_BK = optax.smooth_labels(nn.one_hot(batch["label"], logits_BK.shape[-1]), smoothing)
        loss_B = optax.softmax_cross_entropy(logits_BK.astype("float32"), label_BK)
        values = {"loss": loss_B, "accuracy": logits_BK.argmax(-1) == batch["label"]}
        return {name: Mean.of(value_B, batch["weight"]) for name, value_B in values.items()}

    def loss(params, extra, batch, keys_B):
        logits_BK, extra = apply(model, params, extra, batch[inputs], keys_B, **options(batch))
        metrics = measure(logits_BK, batch, smoothing)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        logits_BK, _ = apply(model, params, extra, batch[inputs], None, **options(batch))
        return measure(logits_BK, batch)

    return Task(init_from(model, inputs), loss, evaluate)
