"""The order of examples as a function: which example is at which place of which pass, with no table and no state.

    place in the stream  ──divmod──►  (pass, position)  ──keyed bijection──►  example

The bijection is a chain of steps that are each invertible on w bits (add, multiply by an odd number,
shift-and-xor), walked again until it falls below n (cycle walking; Black and Rogaway, 2002): at most two
walks on average.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from jaxmodels import choices

Remainder = Literal["wrap", "drop", "pad"]
BLOCK = 1 << 14  # places whose examples are computed at once: enough for one call, few enough for the cache


def mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """A hash of 64-bit integers (the finaliser of SplitMix64; Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def check_seed(seed: int | None) -> None:
    """Raises where two seeds would give the same: what is computed from one has 64 bits."""
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise ValueError(
            f"seed: got {seed} for the data; expected a whole number of 64 bits, below 2^63. Choose another one"
        )


def permute(position: np.ndarray, n: int, key: int | np.ndarray) -> np.ndarray:
    """Where a keyed permutation of range(n) sends each position; int64 of the same shape.

    Several keys (uint64) give one permutation each, along new first axes.
    """
    position = np.asarray(position)
    keys = np.asarray(key & (2**64 - 1), np.uint64)
    shape, size = (*keys.shape, *position.shape), position.size
    if n <= 1:
        return np.zeros(shape, np.int64)
    bits = max(2, int(n - 1).bit_length())
    word = np.uint32 if bits <= 32 else np.uint64
    rounds = 4 if bits > 12 else 8  # few bits mix less in a round
    constants_RK = mix(np.arange(2 * rounds, dtype=np.uint64)[:, None] + mix(keys.reshape(-1)))
    mask = word(2**bits - 1)
    add_RK = (constants_RK[0::2] & np.uint64(mask)).astype(word)
    multiply_RK = ((constants_RK[1::2] | np.uint64(1)) & np.uint64(mask)).astype(word)
    half, third = word((bits + 1) // 2), word(max(1, bits // 3))

    def walk(x, add, multiply):
        shifted = np.empty_like(x)
        for r in range(rounds):
            x += add[r]
            x *= multiply[r]
            x &= mask
            x ^= np.right_shift(x, half if r % 2 == 0 else third, out=shifted)
        return x

    x_KP = np.empty((keys.size, size), word)
    x_KP[:] = position.reshape(-1)
    x = walk(x_KP, add_RK[..., None], multiply_RK[..., None]).reshape(-1)
    far = np.nonzero(x >= n)[0]
    while len(far):
        k = far // size if keys.size > 1 else slice(None)
        x[far] = again = walk(x[far], add_RK[:, k], multiply_RK[:, k])
        far = far[again >= n]
    return x.astype(np.int64).reshape(shape)


class Order:
    """Which examples batch number `step` holds; -1 is padding.

    n: examples; batch: rows of a batch; seed: shuffles each pass differently, None keeps the data's order.
    remainder: what becomes of a last batch that is not full. "wrap" fills it from the next pass (nothing is
    lost, nothing padded), "drop" leaves those rows out of this pass, "pad" fills with -1.
    """

    def __init__(self, n: int, batch: int, seed: int | None, remainder: Remainder):
        choices.check("Order", "remainder", remainder, Remainder)
        if n < 1:
            raise ValueError(
                "the data set: got 0 examples; expected one or more. Look at the file, or at the split it was made from"
            )
        if batch < 1:
            raise ValueError(f"batch is {batch}; it must be at least 1")
        check_seed(seed)
        if remainder == "drop" and batch > n:
            raise ValueError(
                f"the data set: got {n} examples; expected {batch} or more, as of fewer remainder='drop' leaves no "
                "batch at all. Lower the batch, or use remainder='pad'"
            )
        self.n, self.batch, self.seed, self.remainder = n, batch, seed, remainder
        self._blocks: tuple[tuple[int, np.ndarray], ...] = ()  # the last two used, each with its first place

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return self.n // self.batch if self.remainder == "drop" else -(-self.n // self.batch)

    def indices(self, step: int | np.ndarray, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`, int64; of several batches, one row of the result for each."""
        if not isinstance(step, np.ndarray):
            return self._row(int(step), start, stop)
        out = np.empty((step.size, stop - start), np.int64)
        for i, n in enumerate(step.reshape(-1).tolist()):
            out[i] = self._row(n, start, stop)
        return out.reshape(*step.shape, stop - start)

    def _row(self, step: int, start: int, stop: int) -> np.ndarray:
        if self.remainder == "wrap":
            return self._examples(step * self.batch + start, stop - start)
        epoch, within = divmod(step, self.steps)
        position = within * self.batch + start
        real = max(0, min(stop - start, self.n - position))
        examples = self._examples(epoch * self.n + position, real)
        return (
            np.concatenate([examples, np.full(stop - start - real, -1)]) if real < stop - start else examples
        )

    def _examples(self, place: int, count: int) -> np.ndarray:
        """What is at `count` places from `place` on of the endless stream of passes, without padding."""
        if self.seed is None:
            place %= self.n
            examples = np.arange(place, place + count)
            return examples if place + count <= self.n else examples % self.n
        parts, end = [], place + count
        while True:
            first, block = self._block(place)
            parts.append(block[place - first : end - first])
            place = first + len(block)
            if place >= end:
                return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)

    def _block(self, place: int) -> tuple[int, np.ndarray]:
        """Some of the shuffled stream, computed at once, around `place`; and its first place."""
        blocks = self._blocks  # read once: other threads may be elsewhere
        for first, block in blocks:
            if first <= place < first + len(block):
                return first, block
        epoch, position = divmod(place, self.n)
        if self.n <= BLOCK:  # several passes
            epoch -= epoch % (BLOCK // self.n)
            first, block = (
                epoch * self.n,
                permute(np.arange(self.n), self.n, self._keys(epoch, BLOCK // self.n)).reshape(-1),
            )
        else:  # a part of one
            position -= position % BLOCK
            first = epoch * self.n + position
            block = permute(
                np.arange(position, min(position + BLOCK, self.n)), self.n, int(self._keys(epoch, 1)[0])
            )
        self._blocks = ((first, block), *blocks[:1])
        return first, block

    def _keys(self, epoch: int, count: int) -> np.ndarray:
        """The permutations' keys of `count` passes from `epoch` on."""
        return mix(
            mix(np.uint64((self.seed or 0) % 2**64)) ^ np.arange(epoch, epoch + count, dtype=np.uint64)
        )

    def describe(self) -> str:
        """How the passes are cut into batches, in one phrase."""
        over = self.n % self.batch
        text = f"{self.n:,} examples, {self.steps:,} batches of {self.batch:,} a pass"
        if not over:
            return text
        return (
            text
            + {
                "wrap": ", wrapping around",
                "drop": f", the last {over:,} of each pass left out",
                "pad": f", the last of {over:,} padded with weight 0",
            }[self.remainder]
        )
