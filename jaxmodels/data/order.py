"""The order of examples as a function: which example is at which place of which pass, with no table and no state.

    place in the stream  ──divmod──►  (pass, position)  ──keyed bijection──►  example

The bijection is a chain of steps that are each invertible on w bits (add, multiply by an odd number, shift-and-xor),
walked again until it falls below n (cycle walking; Black and Rogaway, 2002): at most two walks on average.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Remainder = Literal["wrap", "drop", "pad"]


def mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """A hash of 64-bit integers (the finaliser of SplitMix64; Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        x = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def permute(position: np.ndarray, n: int, key: int) -> np.ndarray:
    """Where a keyed permutation of range(n) sends each position; int64 of the same shape."""
    position = np.asarray(position)
    if n <= 1:
        return np.zeros(position.shape, np.int64)
    bits = max(2, int(n - 1).bit_length())
    word = np.uint32 if bits <= 32 else np.uint64
    rounds = 4 if bits > 12 else 8  # few bits mix less in a round
    constants = mix(np.arange(2 * rounds, dtype=np.uint64) + mix(np.uint64(key & (2**64 - 1))))
    mask = word(2**bits - 1)
    half, third = word((bits + 1) // 2), word(max(1, bits // 3))

    def walk(x):
        for r in range(rounds):
            x = (x + word(constants[2 * r] & np.uint64(mask))) & mask
            x = (x * word((constants[2 * r + 1] | np.uint64(1)) & np.uint64(mask))) & mask
            x = x ^ (x >> (half if r % 2 == 0 else third))
        return x

    x = walk(position.astype(word))
    far = np.nonzero(x >= n)[0] if x.ndim else None
    if far is None:
        return permute(position[None], n, key)[0]
    while len(far):
        x[far] = walk(x[far])
        far = far[x[far] >= n]
    return x.astype(np.int64)


class Order:
    """Which examples batch number `step` holds; -1 is padding.

    n: examples; batch: rows of a batch; seed: shuffles each pass differently, None keeps the data's order.
    remainder: what becomes of a last batch that is not full. "wrap" fills it from the next pass (nothing is lost, nothing
    padded), "drop" leaves those rows out of this pass, "pad" fills with -1.
    """

    def __init__(self, n: int, batch: int, seed: int | None, remainder: Remainder):
        if n < 1:
            raise ValueError("the data set has no examples; look at the file or at the split it was made from")
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        if remainder == "drop" and batch > n:
            raise ValueError(
                f"a batch of {batch} rows of a data set of {n} with remainder='drop' leaves no batch at all; "
                "lower the batch or use remainder='pad'"
            )
        self.n, self.batch, self.seed, self.remainder = n, batch, seed, remainder
        self._cached: tuple[int, np.ndarray] | None = None

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return self.n // self.batch if self.remainder == "drop" else -(-self.n // self.batch)

    def indices(self, step: int | np.ndarray, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`, int64; of several batches, one row of the result for each."""
        steps = np.asarray(step, np.int64)[..., None]
        rows = np.arange(start, stop, dtype=np.int64)
        if self.remainder == "wrap":
            epoch, position = np.divmod(steps * self.batch + rows, self.n)
        else:
            epoch, within = np.divmod(steps, self.steps)
            position = within * self.batch + rows
            epoch = np.broadcast_to(epoch, position.shape)
        if self.seed is None:
            return np.where(position < self.n, position, -1)
        epoch, flat = epoch.reshape(-1), position.reshape(-1)
        out = np.full(flat.shape, -1, np.int64)
        cuts = np.nonzero(np.diff(epoch, prepend=-1))[0]  # the stream runs through the passes in order
        for a, b in zip(cuts, [*cuts[1:], len(flat)], strict=True):
            real = flat[a:b] < self.n
            out[a:b][real] = self._shuffled(int(epoch[a]), flat[a:b][real])
        return out.reshape(position.shape)

    def _shuffled(self, epoch: int, position: np.ndarray) -> np.ndarray:
        key = int(mix(np.uint64((self.seed or 0) % 2**64)) ^ mix(np.uint64(epoch)))
        if self.n > 1 << 16:
            return permute(position, self.n, key)
        cached = self._cached  # read once: other threads may be in another pass
        if cached is None or cached[0] != epoch:  # a small pass is computed once, whole
            cached = self._cached = (epoch, permute(np.arange(self.n), self.n, key))
        return cached[1][position]

    def describe(self) -> str:
        """How the passes are cut into batches, in one phrase."""
        over = self.n % self.batch
        text = f"{self.n:,} examples, {self.steps:,} batches of {self.batch:,} a pass"
        if not over:
            return text
        return (
            text
            + {
                "wrap": ", which run on into the next pass",
                "drop": f", the last {over:,} of each pass left out",
                "pad": f", the last of {over:,} padded with weight 0",
            }[self.remainder]
        )
