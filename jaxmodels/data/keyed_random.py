"""Random numbers for each example, from the uint64 keys that a pipeline gives to augment.

A number depends on the example's key, the salt and its column alone: on no other example and on no earlier
call. Two changes of the same batch take different salts, so that their choices are independent.

Dimensions: B examples, N numbers for each.
"""

from __future__ import annotations

import numpy as np

from jaxmodels.data.order import mix


def bits(keys_B: np.ndarray, n: int, *, salt: int = 0) -> np.ndarray:
    """(B, n) random uint64: SplitMix64 (Steele et al., 2014) from each key."""
    start_B = np.asarray(keys_B, np.uint64) ^ mix(np.uint64(salt))
    with np.errstate(over="ignore"):
        return mix(mix(start_B)[:, None] + np.arange(n, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))


def uniform(keys_B: np.ndarray, n: int, *, salt: int = 0) -> np.ndarray:
    """(B, n) float32, uniform on [0, 1) in steps of 2^-24."""
    return (bits(keys_B, n, salt=salt) >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def integers(keys_B: np.ndarray, low: int, high: int, n: int, *, salt: int = 0) -> np.ndarray:
    """(B, n) int64, uniform on low, ..., high - 1; the probabilities are equal to within 2^-32."""
    span = high - low
    if not 0 < span <= 1 << 31:
        raise ValueError(
            f"integers: got low={low} and high={high}, {span:,} values; expected from 1 to {1 << 31:,}. "
            "Change one of them"
        )
    upper = bits(keys_B, n, salt=salt) >> np.uint64(32)
    return low + ((upper * np.uint64(span)) >> np.uint64(32)).astype(np.int64)
