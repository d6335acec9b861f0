"""Random changes of images within the training loss, for data that stay on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax

from jaxmodels.task import Task

OFFSET = 2**20  # folded into an example's key: the model draws other numbers


class Change(Protocol):
    """A change of jaxmodels.data.augment: a function of images and of some uniform numbers for each image."""

    @property
    def numbers(self) -> int:
        """The count of these numbers for each image."""

    @property
    def apply(self) -> Callable[[Any, Any], Any]:
        """(image_BHWC, u_BN) to images."""


def augmented(task: Task, changes: Sequence[Change], *, inputs: str = "image") -> Task:
    """The task, trained on batch[inputs] after each of the changes in turn; evaluation gets it unchanged."""

    def loss(params, extra, batch, keys_B):
        return task.loss(params, extra, {**batch, inputs: changed(batch[inputs], keys_B, changes)}, keys_B)

    return task._replace(loss=loss)


def changed(image_BHWC: jax.Array, keys_B: jax.Array, changes: Sequence[Change]) -> jax.Array:
    """The images after each change, by numbers from the examples' keys."""
    for i, change in enumerate(changes):

        def draw(key, i=i, n=change.numbers):
            return jax.random.uniform(jax.random.fold_in(key, OFFSET + i), (n,))

        image_BHWC = change.apply(image_BHWC, jax.vmap(draw)(keys_B)).astype(image_BHWC.dtype)
    return image_BHWC
