"""Recommenders: the best items of a user, and where the right item is placed (scores.recommendation).

Dimensions: B users, V items, n sampled items, S items of a history.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.interfaces import Predictor
from jaxmodels.tasks.apply import apply
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
        row_B = jnp.arange(scores_BV.shape[0])
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
    rows_B1 = jnp.arange(seen_BS.shape[0])[:, None]
    seen = jnp.where(seen_BS < 0, items, seen_BS)
    return jnp.ones((seen_BS.shape[0], items), bool).at[rows_B1, seen].set(False, mode="drop")


class Recommendations(NamedTuple):
    """What recommender() needs of the training data; jaxmodels.data.known.Known has the first three."""

    users: Sequence[str]
    items: Sequence[str]
    past: Any
    """Has of(user), the indices of a user's items, oldest first, and item_N, those of all users."""
    titles: Sequence[str] = ()
    """Of the items, for people."""


def recommender(
    scores: Scores,
    known: Callable[[], Recommendations],
    *,
    inputs: Callable[[int, np.ndarray], Mapping[str, Any]] = lambda user, past: {},
) -> Predictor:
    """A predictor of rows {"user": id, "top": number}: the best items that the user has not had.

    It makes `jaxmodels recommend` work. A user without a history, or who is none of the training's, is cold:
    the answer is then the most frequent items, with their numbers of interactions as scores, and says so.
    scores: see Scores; batches have "user" (B, an index). inputs(user, past) gives more arrays of one user.
    known: what the training data had; it is called when the first user is asked for.
    """

    @cache
    def found() -> tuple[Recommendations, dict[str, int], np.ndarray, int]:
        of = known()
        count_V = np.bincount(of.past.item_N, minlength=len(of.items))
        longest = int(np.diff(of.past.start_U).max(initial=1))
        return of, {id_: n for n, id_ in enumerate(of.users)}, count_V, 1 << (longest - 1).bit_length()

    def read(row: Mapping[str, Any]) -> dict[str, Any]:
        of, number, _, longest = found()
        top = _whole(row.get("top", 10))
        if not 1 <= top <= len(of.items):
            raise ValueError(
                f"top: got {row.get('top')!r}; expected a whole number from 1 to {len(of.items):,}, the "
                "items of the model. Change it"
            )
        user = number.get(str(row["user"]).strip(), -1)
        past = np.zeros(0, np.int32) if user < 0 else of.past.of(user)
        seen = np.full(longest, -1, np.int32)
        seen[: len(past)] = past
        return {
            "user": np.int32(max(user, 0)),
            "cold": np.bool_(not len(past)),
            "seen": seen,
            "top": np.int32(top),
            **inputs(max(user, 0), past),
        }

    def predict(params, extra, batch):
        scores_BV = scores(params, extra, batch).astype(jnp.float32)
        allowed_BV = not_seen(batch["seen"], scores_BV.shape[1])
        best, items = jax.lax.top_k(jnp.where(allowed_BV, scores_BV, -jnp.inf), scores_BV.shape[1])
        return {"items": items, "scores": best, "cold": batch["cold"], "top": batch["top"]}

    def report(prediction: Any) -> dict[str, Any]:
        of, _, count_V, _ = found()
        items, scores_K = prediction["items"], prediction["scores"]
        if cold := bool(prediction["cold"]):
            items = np.argsort(-count_V, kind="stable")
            scores_K = count_V[items].astype(np.float64)
        kept = [n for n in range(int(prediction["top"])) if np.isfinite(scores_K[n])]
        rows = [{"item": of.items[items[n]], "score": float(scores_K[n])} for n in kept]
        if of.titles:
            rows = [{**row, "title": of.titles[items[n]]} for n, row in zip(kept, rows, strict=True)]
        return {"cold": cold, "items": rows}

    return Predictor(read=read, predict=predict, report=report, input="row", fields=("user",))


def scores_of_pairs(model: Any, items: Callable[[], np.ndarray]) -> Scores:
    """Scores of a model of "ids" for batches of "user": its output for each user with every item.

    items() gives what follows the user in the model's inputs, V x (F - 1): the item, and what describes it.
    """

    def scores(params, extra, batch):
        # Behind a barrier, as XLA would compute on a constant while it compiles.
        item_VF = jax.lax.optimization_barrier(jnp.asarray(items(), jnp.int32))

        def of_user(user):
            ids_VF = jnp.concatenate([jnp.full((len(item_VF), 1), user, jnp.int32), item_VF], 1)
            return apply(model, params, extra, ids_VF, None)[0][:, 0]

        return jax.lax.map(of_user, batch["user"])

    return scores


def _whole(value: Any) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0
