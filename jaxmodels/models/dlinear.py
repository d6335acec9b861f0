"""DLinear: trend and remainder of a series, each mapped to the future by one matrix (arXiv:2205.13504).

The trend is a moving average of the history, whose first and last values are repeated at its ends. All series
share the matrices. Beyond the paper, columns whose future is known add a linear function of each time's.
Dimensions: B batch, L steps of history, H of the horizon, T = L + H, C series, K known columns.
"""

from __future__ import annotations

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxmodels.layers.model import Model

# PyTorch's, and so the authors': uniform, as wide as 1 / √L.
UNIFORM = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")


class DLinear(Model):
    """Maps the last L values of each series to the next H."""

    horizon: int
    kernel: int = 25  # steps of the moving average
    dtype: jnp.dtype | None = None  # of the products; None follows the parameters

    @nn.compact
    def __call__(
        self, history_BLC: jax.Array, keys_B: jax.Array | None = None, known_BTK: jax.Array | None = None
    ) -> jax.Array:
        """The forecast, BHC. keys_B is not used. known_BTK: of the history's times and the horizon's."""
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(
                f"DLinear: got a moving average of {self.kernel} steps; expected an odd number, so that it "
                "has a middle. Add one."
            )
        dense = partial(nn.Dense, self.horizon, kernel_init=UNIFORM, dtype=self.dtype)
        half = self.kernel // 2
        padded = jnp.pad(history_BLC, ((0, 0), (half, half), (0, 0)), mode="edge")
        trend_BLC = nn.avg_pool(padded, (self.kernel,))
        trend_BCH = dense(name="trend")(trend_BLC.swapaxes(1, 2))
        remainder_BCH = dense(name="remainder")((history_BLC - trend_BLC).swapaxes(1, 2))
        forecast_BHC = (trend_BCH + remainder_BCH).swapaxes(1, 2)
        if known_BTK is None:
            return forecast_BHC
        ahead_BHK = known_BTK[:, history_BLC.shape[1] :].astype(history_BLC.dtype)
        C = history_BLC.shape[-1]
        return forecast_BHC + nn.Dense(C, use_bias=False, dtype=self.dtype, name="known")(ahead_BHK)
