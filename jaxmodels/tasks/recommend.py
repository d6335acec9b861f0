"""Where a recommender places the right item, for Evaluation.predict; see jaxmodels.scores.recommendation.

Dimensions: B users, V items, n sampled items, S items of a history.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.tasks.ranking import placed

Scores = Callable[[Any, Any, Any], jax.Array]  # (params, extra, batch) to scores of all items, BV


def placed_target(scores: Scores, *, top: int = 10) -> Callable[[Any, Any, Any], dict[str, jax.Array]]:
    """(params, extra, batch) to where each user's "target" (B, an item's index) is placed.

    "higher" and "equal" (itself included) are counted over all items that are not in "seen" (BS, -1 fills
    up); "sampled_higher" and "sampled_equal" among "negatives" (Bn) where a batch has them; "top" are the
    `top` items of those not seen with the highest scores.
    """

    def predict(params, extra, batch):
        scores_BV = scores(params, extra, batch).astype(jnp.float32)
        row_B = jnp.arange(len(scores_BV))
        own_B = scores_BV[row_B, batch["target"]]
        unseen_BV = not_seen(batch["seen"], scores_BV.shape[1])
        others_BV = unseen_BV.at[row_B, batch["target"]].set(False)
        higher_B, equal_B = placed(scores_BV, own_B, others_BV)
        found = {"higher": higher_B, "equal": equal_B + 1}
        if "negatives" in batch:
            sampled_Bn = jnp.take_along_axis(scores_BV, batch["negatives"], 1)
            higher_B, equal_B = placed(sampled_Bn, own_B)
            found |= {"sampled_higher": higher_B, "sampled_equal": equal_B + 1}
        return {**found, "top": jax.lax.top_k(jnp.where(unseen_BV, scores_BV, -jnp.inf), top)[1]}

    return predict


def not_seen(seen_BS: jax.Array, items: int) -> jax.Array:
    """Whether each item is in none of the row's histories, BV; seen_BS: indices, -1 for none."""
    rows_B1 = jnp.arange(len(seen_BS))[:, None]
    seen = jnp.where(seen_BS < 0, items, seen_BS)
    return jnp.ones((len(seen_BS), items), bool).at[rows_B1, seen].set(False, mode="drop")
