"""The base of all models: a linen module that checks its options and takes one key per example, not rngs."""

from __future__ import annotations

from typing import Any

import flax.linen as nn

from jaxmodels import choices


class Model(nn.Module):
    """A linen module. Options that are annotated as a Literal are checked at construction.

    Randomness comes in as `keys_B`, one key for each example, with which a call is training; linen's rngs
    would reach no layer, and dropout would silently be off.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        owner: Any = type(self)
        for name, kind in choices.of_fields(owner).items():
            choices.check(type(self).__name__, name, getattr(self, name), kind)

    @nn.nowrap
    def apply(self, variables: Any, *args: Any, rngs: Any = None, **options: Any) -> Any:
        """As nn.Module.apply, without rngs."""
        if rngs:
            names = "a key" if not isinstance(rngs, dict) else ", ".join(map(repr, rngs))
            raise ValueError(
                f"{type(self).__name__}: got rngs ({names}); expected none, as this model takes one random "
                "key for each example. Give keys_B=jax.random.split(key, batch) after the inputs, with "
                "which it is training."
            )
        return super().apply(variables, *args, **options)
