"""jaxmodels recommend: the items that a run's recommender would show a user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmodels.options import CheckpointOptions


@dataclass(frozen=True, kw_only=True)
class RecommendOptions:
    """For whom, and how many."""

    user: str = ""
    """The user's id, as in the table of interactions."""
    top: int = 10
    """Items."""


def recommend(
    run: str | Path,
    *,
    user: str,
    top: int = RecommendOptions.top,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    warn: Any = print,
) -> dict[str, Any]:
    """The best items that the user has not had: {"user", "cold", "items": [{"item", "score", …}]}.

    A user whom the run's training did not have is "cold": the items are then those with the most
    interactions, and these numbers their scores. What users have had is kept in the run's folder.
    """
    from jaxmodels.inference.load import load

    if not str(user).strip():
        raise ValueError(
            "recommend: got no user; expected a user's id, as in the table of interactions. Give --user ID"
        )
    model = load(run, step=step, mesh=mesh, precision=precision, warn=warn)
    if model.predictor is None or "user" not in model.predictor.fields:
        raise ValueError(
            f"{run}: got an experiment whose build() gives no recommender; expected one, to know users and "
            "items. Give it predictor=recommender(…) of jaxmodels.tasks.recommend"
        )
    (answer,) = model([{"user": str(user), "top": top}])
    if answer.error:
        raise ValueError(answer.error)
    return {"user": str(user), **answer.values}
