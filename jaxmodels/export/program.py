"""What of a model is exported: a function of its parameters and a batch, what it takes, and what it means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels.export.inputs import Inputs
from jaxmodels.layers.attention import lowered_for
from jaxmodels.paths import by_path

OUTPUT = "output"  # the name of the only output of a model that names none


class Program(NamedTuple):
    """function(params, extra, batch) gives a pytree of arrays, the batch's axis first.

    examples: arrays by name, without that axis; those that differ in length say which axes are of any size.
    about: what somebody elsewhere has to know, as JSON.
    """

    function: Callable[[Any, Any, Mapping[str, Any]], Any]
    params: Any
    extra: Any
    examples: Sequence[Mapping[str, np.ndarray]]
    about: Mapping[str, Any] = {}

    @property
    def inputs(self) -> Inputs:
        """What a batch holds."""
        return Inputs.of(self.examples)

    def outputs(self, params: Any, extra: Any, batch: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The function's arrays by name: keys, fields and indices, joined by a slash."""
        outputs = self.function(params, extra, batch)
        return {name or OUTPUT: x for name, x in by_path(outputs).items()}

    def closed(self) -> Callable[[Mapping[str, Any]], dict[str, jax.Array]]:
        """The function of a batch alone; the parameters are constants in it."""
        held = jax.tree.map(np.asarray, (self.params, self.extra))  # wherever they are, and however split

        def function(batch: Mapping[str, Any]) -> dict[str, jax.Array]:
            params, extra = jax.tree.map(jnp.asarray, held)
            with lowered_for("definition"):  # of attention: its kernels are for one platform, or one length
                return self.outputs(params, extra, batch)

        return function

    def bytes(self) -> int:
        """Of the parameters and other variables."""
        return sum(x.nbytes for x in jax.tree.leaves((self.params, self.extra)))
