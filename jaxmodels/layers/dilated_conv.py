"""Causal convolution of kernel 2 with a dilation: output t is of the inputs t and t - dilation.

Dimensions: B batch, T samples, C channels, F features.
"""

from __future__ import annotations

import jax
from jax import lax


def dilated_conv(x_BTC: jax.Array, kernel_2CF: jax.Array, dilation: int) -> jax.Array:
    """x[t - dilation] @ kernel[0] + x[t] @ kernel[1] (BTF), where what is before the first sample is 0."""
    return lax.conv_general_dilated(
        x_BTC,
        kernel_2CF,
        (1,),
        ((dilation, 0),),
        rhs_dilation=(dilation,),
        dimension_numbers=("NWC", "WIO", "NWC"),
    )
