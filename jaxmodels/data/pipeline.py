"""Pipelines over arrays: any rows of any batch by one vectorized gather, on the host or on the device.

    indices(step, start, stop) ──gather──► rows of the arrays ──prepare──► batch ──augment──► batch

Dimensions: B rows of a batch, T tokens of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxmodels import choices
from jaxmodels.data.fingerprint import of_arrays
from jaxmodels.data.narrowing import overflow
from jaxmodels.data.order import Order, Remainder, stream_keys
from jaxmodels.pipeline import Pipeline, Spec
from jaxmodels.runs.learned import PipelineMemory, remembering

Arrays = Mapping[str, np.ndarray]
Augment = Callable[[dict[str, np.ndarray], np.ndarray], dict[str, np.ndarray]]


class ArrayPipeline(Pipeline):
    """Examples in arrays of one length.

    open: the arrays, or a function that reads them, called on first use.
    seed: shuffles each pass; None keeps the order.
    remainder: see Order; by default "wrap" when shuffled and "pad" when not.
    prepare(batch): any vectorized change that NumPy and JAX arrays both support, such as scaling; runs on the
        host or the device, like the gather.
    augment(batch, keys_B): random changes on the host; the uint64 keys depend on the seed and the position in
        the stream alone.
    spec: shapes and types of the prepared arrays, so that building needs no data; read from the data where
        absent.

    A batch holds the arrays' rows and "weight", float32: 1, or 0 for padding. The arrays may hold their own
    "weight", of any shape; it is 0 for padding too.
    """

    def __init__(
        self,
        open: Arrays | Callable[[], Arrays],
        *,
        batch: int,
        seed: int | None = None,
        remainder: Remainder | None = None,
        prepare: Callable[[dict], dict] | None = None,
        augment: Sequence[Augment] = (),
        spec: Spec | None = None,
    ):
        self._open = remembering(open) if callable(open) else open
        self._kept = PipelineMemory.here()
        self.batch = batch
        self.seed = seed
        self.remainder: Remainder = ("pad" if seed is None else "wrap") if remainder is None else remainder
        choices.check(type(self).__name__, "remainder", self.remainder, Remainder)
        self._prepare = prepare
        self._augment = tuple(augment)
        self._spec = spec

    @cached_property
    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays, read once."""
        arrays = self._opened()
        lengths = {name: len(x) for name, x in arrays.items()}
        if len(set(lengths.values())) != 1:
            raise ValueError(
                f"the arrays differ in length: got {lengths}; expected one row for each example in all. Give "
                "such arrays"
            )
        Order(
            len(next(iter(arrays.values()))), max(1, self.batch), None, "pad"
        )  # raises where there are no rows
        return arrays

    def _opened(self) -> dict[str, np.ndarray]:
        arrays = self._open() if callable(self._open) else self._open
        return {name: np.asarray(x) for name, x in arrays.items()}

    @cached_property
    def order(self) -> Order:
        """Which example each row holds."""
        return Order(self._count(), self.batch, self.seed, self.remainder)

    def _count(self) -> int:
        return len(next(iter(self.arrays.values())))

    @cached_property
    def steps(self) -> int:
        """Batches in one pass; where the data is not here, in a pass of the data of the run's training."""
        return Order(self._kept.get("examples", self._count), self.batch, self.seed, self.remainder).steps

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis."""
        if self._spec is not None:
            return {"weight": ((), np.dtype(np.float32)), **self._spec}
        return self._kept.spec(lambda: self.gather(self.arrays, np.zeros(1, np.int64)))

    def indices(self, step: int | np.ndarray, start: int, stop: int) -> np.ndarray:
        """The examples in rows start to stop of batch `step`, -1 for padding. Several steps give a row
        each."""
        return self.order.indices(step, start, stop)

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The batch at these indices; works on NumPy and on JAX arrays."""
        batch = _gathered(arrays, indices_B)
        return self._prepare(batch) if self._prepare else batch

    def columns(self) -> dict[str, np.ndarray]:
        """The arrays in memory whose rows prepare and augment leave unchanged, by the batch's key."""
        return self._columns(self.arrays)

    def _columns(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        first: dict[str, Any] = _gathered(arrays, np.zeros(1, np.int64))
        copies, batch = {name: x.copy() for name, x in first.items()}, dict(first)
        if self._prepare:
            batch = self._prepare(batch)
        for change in self._augment:
            batch = change(batch, np.zeros(1, np.uint64))
        n = len(next(iter(arrays.values())))
        columns = {"weight": np.broadcast_to(np.float32(1), (n,)), **arrays}
        unchanged: dict[str, np.ndarray] = {}
        for name, x in first.items():
            is_same = name in batch and batch[name] is x and x.tobytes() == copies[name].tobytes()
            if is_same and not is_mapped(columns[name]):
                unchanged[name] = columns[name]
        return unchanged

    def rows(self, step: int, start: int, stop: int) -> dict[str, np.ndarray]:
        """Rows start to stop of batch `step`."""
        batch = self.gather(self.arrays, self.indices(step, start, stop))
        if self._augment:
            first = step * self.batch
            keys_B = stream_keys(self.seed, np.arange(first + start, first + stop, dtype=np.uint64))
            for change in self._augment:
                batch = change(batch, keys_B)
        return batch

    def resident(self) -> dict[str, np.ndarray] | None:
        """All arrays, for a device to hold; None where the host changes each batch."""
        return None if self._augment else self.arrays

    def fingerprint(self) -> str:
        """Changes when an example or the order of the examples does; see data/fingerprint.py."""
        return of_arrays(self.arrays)

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return self.order.describe()


class WindowPipeline(ArrayPipeline):
    """Windows over one long array of tokens, for language models.

    open: the tokens, in one dimension and of any integer type (a memory map is not read whole), or a function
        that returns them.
    length: tokens T that the model sees and predicts.
    stride: distance between the starts of windows; 1 takes every window, T each token once.
    overlap: tokens at the start of a window that the model sees and that are not scored (the first window
        scores all), so that with stride = T - overlap every token is scored once, with context.

    A batch holds "inputs" and "targets" (int32, BT; the targets are the inputs shifted by one) and "weight"
    (float32, BT).
    """

    def __init__(
        self,
        open: np.ndarray | Callable[[], np.ndarray],
        *,
        length: int,
        batch: int,
        stride: int | None = None,
        overlap: int = 0,
        seed: int | None = None,
        remainder: Remainder | None = None,
    ):
        if not 0 <= overlap < length:
            raise ValueError(
                f"{type(self).__name__}: got overlap={overlap} and length={length}; expected an overlap from "
                f"0 to {length - 1}. Change one of them"
            )

        def arrays() -> Arrays:
            return {"tokens": open() if callable(open) else open}

        super().__init__(
            arrays if callable(open) else arrays(),
            batch=batch,
            seed=seed,
            remainder=remainder,
            spec={"inputs": ((length,), np.dtype(np.int32)), "targets": ((length,), np.dtype(np.int32))},
        )
        self.length, self.overlap, self.stride = length, overlap, stride or length - overlap

    @cached_property
    def spec(self) -> Spec:
        """Shape and type of each array of a batch, without the example axis."""
        return {**(self._spec or {}), "weight": ((self.length,), np.dtype(np.float32))}

    def _count(self) -> int:
        targets = len(self.arrays["tokens"]) - 1
        if targets < 1:
            raise ValueError(
                f"the tokens: got {targets + 1} of them; expected at least two for a language model. Look at "
                "the file"
            )
        if self.stride < self.length - self.overlap:  # training on every offset: whole windows only
            return max(1, (targets - self.length) // self.stride + 1)
        return max(1, -(-(targets - self.overlap) // self.stride))

    def columns(self) -> dict[str, np.ndarray]:
        """The tokens, where they are in memory: a row is one token."""
        return token_columns(self.arrays["tokens"])

    def gather(self, arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
        """The windows at these indices; works on NumPy and on JAX arrays."""
        tokens = arrays["tokens"]
        last = len(tokens) - 1
        if isinstance(tokens, np.ndarray) and tokens.flags.c_contiguous and self._are_full(indices_B, last):
            return self._copied(tokens, indices_B)
        position_BT = indices_B[:, None] * self.stride + np.arange(self.length, dtype=np.int32)
        real_BT = (position_BT < last) & (indices_B >= 0)[:, None]
        if self.overlap:
            real_BT &= (np.arange(self.length) >= self.overlap) | (indices_B == 0)[:, None]
        inside_BT = position_BT.clip(0, last - 1)
        return {
            "inputs": as_int32(tokens[inside_BT]),
            "targets": as_int32(tokens[inside_BT + 1]),
            "weight": real_BT.astype(np.float32),
        }

    def _are_full(self, indices_B: np.ndarray, last: int) -> bool:
        """Whether no window has padding."""
        if not indices_B.size:
            return False
        # One reduction for both ends: as unsigned integers, those below 0 are larger than any index.
        return int(indices_B.astype(np.uint64).max()) * self.stride + self.length <= last

    def _copied(self, tokens: np.ndarray, indices_B: np.ndarray) -> dict[str, np.ndarray]:
        """The batch of windows without padding, on the host: each window is copied at once."""
        shape, size = (len(tokens) - self.length, self.length + 1), tokens.itemsize
        windows_BT = np.ndarray(shape, tokens.dtype, tokens, strides=(size, size))[indices_B * self.stride]
        weight_BT = np.ones((len(indices_B), self.length), np.float32)
        if self.overlap:
            weight_BT[:, : self.overlap] = (indices_B == 0)[:, None]
        return {
            "inputs": as_int32(windows_BT[:, :-1]),
            "targets": as_int32(windows_BT[:, 1:]),
            "weight": weight_BT,
        }

    def describe(self) -> str:
        """The data and its batches, in one phrase."""
        return f"{len(self.arrays['tokens']):,} tokens in windows of {self.length}: {super().describe()}"


def _gathered(arrays: Mapping[str, Any], indices_B: Any) -> dict[str, Any]:
    batch: dict[str, Any] = {name: _take(x, indices_B) for name, x in arrays.items()}
    weight_B = (indices_B >= 0).astype(np.float32)
    if (own := batch.get("weight")) is not None:
        weight_B = own.astype(np.float32) * weight_B.reshape(-1, *[1] * (own.ndim - 1))
    batch["weight"] = weight_B
    return batch


def is_mapped(x: Any) -> bool:
    """Whether an array is a memory map, which may be too large to be read whole."""
    while isinstance(x, np.ndarray):
        if isinstance(x, np.memmap):
            return True
        x = x.base
    return False


def token_columns(tokens: np.ndarray) -> dict[str, np.ndarray]:
    """The columns of a language model's batches: the tokens, unless they are a memory map."""
    if is_mapped(tokens):
        return {}
    return {"inputs": tokens, "targets": tokens, "weight": np.broadcast_to(np.float32(1), tokens.shape)}


def as_int32(x: Any, name: str = "tokens") -> Any:
    """x as int32, on the host or on the device; raises ValueError where a value does not fit."""
    if isinstance(x, np.ndarray) and x.dtype.itemsize > 4 and (loss := overflow(x)):
        raise ValueError(f"{name}: got {loss.got}; expected {loss.expected}. Take the model's own tokenizer")
    return x.astype(np.int32)


def _take(x: Any, indices: Any) -> Any:
    """x[indices]; NumPy's take is faster for rows, but copies an array first that is not contiguous."""
    if isinstance(x, np.ndarray) and x.ndim > 1 and x.flags.c_contiguous and x.flags.aligned:
        return x.take(indices, 0)
    return x[indices]
