"""What a recommender keeps of its training data: ids, and what each user has had, in the order of time.

It is learned (see data/learned.py), so a run's folder has it, and recommends where the data is absent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.data.interactions import History, Interactions, history
from jaxmodels.runs.learned import learned, remembering


class Known(NamedTuple):
    """The users and items of a run's training, and the users' histories."""

    users: tuple[str, ...]
    items: tuple[str, ...]
    past: History
    about: Mapping[str, Any]
    """Whatever else is known of the items, such as titles, as JSON."""


def known(
    name: str, open: Callable[[], Interactions], about: Callable[[], Mapping[str, Any]] = dict
) -> Callable[[], Known]:
    """A function that gives what is known, from the run's folder where one is opened, else from open().

    Call it where the training data is read, such as in the function of an ArrayPipeline, so that the run
    keeps it. name: one for each set of interactions in an experiment. A run's folder has room for some two
    million interactions.
    """

    def found() -> dict[str, Any]:
        data = open()
        past = history(data)
        return {
            "users": data.users,
            "items": data.items,
            "history": past.item_N,
            "start": past.start_U,
            "about": dict(about()),
        }

    def get() -> Known:
        x = learned(f"{name}: known", found)
        past = History(np.array(x["history"], np.int32), np.array(x["start"], np.int64))
        return Known(tuple(x["users"]), tuple(x["items"]), past, x["about"])

    return cache(remembering(get))
