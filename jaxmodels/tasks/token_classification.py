"""Token classification: softmax cross-entropy over the classes of each token.

Dimensions: B batch, T tokens, K classes.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import optax

from jaxmodels.task import Mean, Task
from jaxmodels.tasks.apply import apply, init_from, table_sizes
from jaxmodels.tasks.ranking import first
from jaxmodels.tasks.requirements import inputs_of, labels, segments, weights


def token_classification(model: nn.Module) -> Task:
    """Cross-entropy and accuracy of each token's class.

    A batch has inputs (BT, int), segments (BT, 0 is padding), label (BT) and weight (BT, or B for whole
    rows). A token of weight 0 does not count in loss and metrics, such as all but the first of a word; nor
    does padding.
    """

    def measure(logits_BTK: Any, batch: Any) -> dict[str, Mean]:
        label_BT = batch["label"]
        weight_BT = batch["weight"].reshape(len(label_BT), -1) * (batch["segments"] != 0)
        loss_BT = optax.softmax_cross_entropy_with_integer_labels(logits_BTK.astype("float32"), label_BT)
        values = {"loss": loss_BT, "accuracy": first(logits_BTK, label_BT)}
        return {name: Mean.of(value_BT, weight_BT) for name, value_BT in values.items()}

    def logits(params, extra, batch, keys_B):
        return apply(
            model,
            params,
            extra,
            batch["inputs"],
            keys_B,
            segments_BT=batch["segments"],
            weight=batch["weight"],
        )

    def loss(params, extra, batch, keys_B):
        logits_BTK, extra = logits(params, extra, batch, keys_B)
        metrics = measure(logits_BTK, batch)
        return metrics["loss"], extra, metrics

    def evaluate(params, extra, batch):
        return measure(logits(params, extra, batch, None)[0], batch)

    def requires(batch, params, extra):
        def run(params, extra, batch):
            return logits(params, extra, batch, None)[0]

        logits_BTK, tables = table_sizes(run, params, extra, batch)
        return {
            "inputs": inputs_of(batch["inputs"], tables.get("inputs")),
            "label": labels(logits_BTK.shape[-1], logits_BTK.shape[1:-1]),
            "weight": weights(None),
            "segments": segments(),
        }

    return Task(init_from(model, "inputs"), loss, evaluate, requires=requires)
