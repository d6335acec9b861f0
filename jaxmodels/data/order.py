"""The order of examples as a function of the position, with no table and no state.

    position in the stream  ──divmod──►  (pass, position in it)  ──keyed bijection──►  example

The stream is one pass over the data after another. The bijection is a chain of steps that are each
invertible on w bits (add, multiply by an odd number, shift-and-xor), repeated until the result is below n
(cycle walking; Black and Rogaway, 2002): at most two rounds on average.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from jaxmodels import choices

Remainder = Literal["wrap", "drop", "pad"]
BLOCK = (
    1 << 14
)  # positions whose examples are computed at once: enough for one call, few enough for the cache


def mix(x: np.ndarray | np.uint64) -> np.ndarray:
    """A hash of 64-bit integers (the finaliser of SplitMix64; Steele et al., 2014)."""
    with np.errstate(over="ignore"):
        z = np.asarray(x, np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def stream_keys(seed: int | None, positions: int | np.ndarray) -> np.ndarray:
    """uint64 keys of positions in a stream (of rows or passes), by the seed and the position alone."""
    return mix(mix(np.uint64((seed or 0) % 2**64)) ^ np.asarray(positions, np.uint64))


def check_seed(seed: int | None) -> None:
    """Raises ValueError where two seeds would give the same order: 64 bits of a seed are used."""
    if seed is not None and not -(2**63) <= seed < 2**63:
        raise ValueError(
            f"seed: got {seed} for the data; expected a whole number of 64 bits, below 2^63. Choose another "
            "one"
        )


def check_batch(batch: int) -> None:
    """Raises ValueError for a batch without rows."""
    if batch < 1:
        raise ValueError(f"batch: got {batch} rows; expected at least 1. Raise it")


def permute(position: np.ndarray, n: int, key: int | np.ndarray) -> np.ndarray:
    """The image of each position under a keyed permutation of range(n); int64 of the same shape.

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
    outside = np.nonzero(x >= n)[0]
    while len(outside):
        k = outside // size if keys.size > 1 else slice(None)
        x[outside] = again = walk(x[outside], add_RK[:, k], multiply_RK[:, k])
        outside = outside[again >= n]
    return x.astype(np.int64).reshape(shape)


class Order:
    """Which examples batch number `step` holds; -1 is padding.

    n: examples.
    batch: rows of a batch.
    seed: shuffles each pass differently; None keeps the data's order.
    remainder: what happens to a last batch that is not full. "wrap" fills it from the next pass (nothing is
        lost, nothing padded), "drop" drops those rows from this pass, "pad" fills with -1.
    """

    def __init__(self, n: int, batch: int, seed: int | None, remainder: Remainder):
        choices.check("Order", "remainder", remainder, Remainder)
        if n < 1:
            raise ValueError(
                "the data set: got 0 examples; expected one or more. Look at the file or the split that it "
                "was made from"
            )
        check_batch(batch)
        check_seed(seed)
        if remainder == "drop" and batch > n:
            raise ValueError(
                f"the data set: got {n} examples; expected {batch} or more, because remainder='drop' makes "
                "no batch of fewer. Lower the batch, or use remainder='pad'"
            )
        self.n, self.batch, self.seed, self.remainder = n, batch, seed, remainder
        self._blocks: tuple[
            tuple[int, np.ndarray], ...
        ] = ()  # the last two used, each with its first position

    @property
    def steps(self) -> int:
        """Batches in one pass."""
        return self.n // self.batch if self.remainder == "drop" else -(-self.n // self.batch)

    def indices(self, step: int | np.ndarray, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`, int64; several batches give a row each."""
        if not isinstance(step, np.ndarray):
            return self._row(int(step), start, stop)
        out = np.empty((step.size, stop - start), np.int64)
        for i, n in enumerate(step.reshape(-1).tolist()):
            out[i] = self._row(n, start, stop)
        return out.reshape(*step.shape, stop - start)

    def _row(self, step: int, start: int, stop: int) -> np.ndarray:
        if self.remainder == "wrap":
            return self._examples(step * self.batch + start, stop - start)
        epoch, batch = divmod(step, self.steps)
        first = batch * self.batch + start
        real = max(0, min(stop - start, self.n - first))
        examples = self._examples(epoch * self.n + first, real)
        padding = stop - start - real
        return np.concatenate([examples, np.full(padding, -1)]) if padding else examples

    def _examples(self, position: int, count: int) -> np.ndarray:
        """The examples at `count` positions from `position` on in the endless stream of passes."""
        if self.seed is None:
            position %= self.n
            examples = np.arange(position, position + count)
            return examples if position + count <= self.n else examples % self.n
        parts, end = [], position + count
        while True:
            first, block = self._block(position)
            parts.append(block[position - first : end - first])
            position = first + len(block)
            if position >= end:
                return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)

    def _block(self, position: int) -> tuple[int, np.ndarray]:
        """A block of the shuffled stream around `position`, computed at once; with its first position."""
        blocks = self._blocks  # read once: other threads may replace it
        for first, block in blocks:
            if first <= position < first + len(block):
                return first, block
        epoch, start = divmod(position, self.n)
        if self.n <= BLOCK:  # several passes
            passes = BLOCK // self.n
            epoch -= epoch % passes
            first = epoch * self.n
            keys = stream_keys(self.seed, np.arange(epoch, epoch + passes))
            block = permute(np.arange(self.n), self.n, keys).reshape(-1)
        else:  # a part of one pass
            start -= start % BLOCK
            first = epoch * self.n + start
            stop = min(start + BLOCK, self.n)
            block = permute(np.arange(start, stop), self.n, int(stream_keys(self.seed, epoch)))
        self._blocks = ((first, block), *blocks[:1])
        return first, block

    def describe(self) -> str:
        """How the passes are divided into batches, in one phrase."""
        over = self.n % self.batch
        text = f"{self.n:,} examples, {self.steps:,} batches of {self.batch:,} a pass"
        if not over:
            return text
        endings = {
            "wrap": ", wrapping around",
            "drop": f", the last {over:,} of each pass dropped",
            "pad": f", the last of {over:,} padded with weight 0",
        }
        return text + endings[self.remainder]
