"""Examples a second of the pipelines over arrays in memory, against plain NumPy and PyTorch's DataLoader.

    python benchmarks/input.py
    python benchmarks/input.py --case windows --rounds 9
    python benchmarks/input.py --quick              # does it work at all

Every way gives shuffled batches, pass after pass, on one core: NumPy by one permutation a pass and one
indexing a batch, PyTorch without worker processes, by its default of one item at a time and by __getitems__,
which fetches a batch at once. "feed" is the way to the device: the thread that the runner reads with, against
reading and placing in turn. "indices" is what that thread does for a small data set that lies on the device.
PyTorch is left out where it is not installed. The last line of stdout is JSON.

Dimensions: B batch, T tokens of a window.
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import measure
import numpy as np

from jaxmodels.data.pipeline import ArrayPipeline, WindowPipeline
from jaxmodels.parallel.mesh import make_mesh
from jaxmodels.training.feed import Feed

B = 128
OF_NUMPY = 0.9  # of NumPy's examples a second
INDICES_US = 8.0  # for the indices of a batch
T, WINDOWS_B = 128, 16


def endless(passes: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """One pass after another."""
    while True:
        yield from passes()


class Timed:
    """Seconds of one batch of an endless stream, from where the last call stopped."""

    def __init__(self, batches: Iterator[Any], seconds: float):
        self.batches, self.seconds = batches, seconds
        for _ in itertools.islice(
            batches, 10
        ):  # what is read or compiled on first use, and what was kept ready
            pass

    def __call__(self) -> float:
        count, begun = 0, time.perf_counter()
        while (took := time.perf_counter() - begun) < self.seconds:
            for _ in itertools.islice(self.batches, 10):
                pass
            count += 10
        return took / count


# Streams of batches


def of_pipeline(data: ArrayPipeline) -> Iterator[Any]:
    return (data.rows(step, 0, data.batch) for step in itertools.count())


def of_numpy(n: int, batch: int, take: Callable[[np.ndarray], Any]) -> Iterator[Any]:
    draw = np.random.default_rng(0)

    def one_pass():
        order = draw.permutation(n)
        return (take(order[i : i + batch]) for i in range(0, n - batch + 1, batch))

    return endless(one_pass)


def of_torch(n: int, take: Callable[[Any], Any], way: str) -> Iterator[Any]:
    """take(i) gives an example's tensors, or with a list of numbers a whole batch."""
    import torch.utils.data

    class Items(torch.utils.data.Dataset):
        def __len__(self):
            return n

        def __getitem__(self, i):
            return take(i)

    class Batches(Items):
        def __getitems__(self, indices):
            return take(indices)

    if way == "item by item":
        loader = torch.utils.data.DataLoader(Items(), B, shuffle=True)
    else:
        loader = torch.utils.data.DataLoader(Batches(), B, shuffle=True, collate_fn=lambda batch: batch)
    return endless(lambda: iter(loader))


def of_feed(data: ArrayPipeline) -> Iterator[Any]:
    """Batches on the device, by the runner's thread."""
    segments = ((n, n + 1) for n in itertools.count())
    with Feed(data, make_mesh(), segments, resident=False) as feed:
        for dispatch in feed.until():
            yield jax.block_until_ready(dispatch.inputs)


def of_indices(data: ArrayPipeline, steps: int) -> Iterator[Any]:
    return (
        data.indices(np.arange(n, n + steps), 0, data.batch).astype(np.int32)
        for n in itertools.count(0, steps)
    )


# The cases: what is compared


def floats(quick: bool) -> dict[str, Callable[[], Iterator[Any]]]:
    """Rows of 784 float32."""
    n = 2_000 if quick else 60_000
    draw = np.random.default_rng(0)
    image, label = draw.random((n, 784), np.float32), draw.integers(0, 10, n)
    return _rows(n, image, label, None, lambda x: x)


def bytes_scaled(quick: bool) -> dict[str, Callable[[], Iterator[Any]]]:
    """Rows of 784 bytes, made float32 between 0 and 1."""
    n = 2_000 if quick else 60_000
    draw = np.random.default_rng(0)
    image, label = draw.integers(0, 256, (n, 784), np.uint8), draw.integers(0, 10, n)
    scale = np.float32(1 / 255)

    def prepare(batch):
        return {**batch, "image": batch["image"] * scale}

    return _rows(n, image, label, prepare, lambda x: x * scale)


def _rows(
    n: int, image: Any, label: Any, prepare: Any, scaled: Callable
) -> dict[str, Callable[[], Iterator[Any]]]:
    def torch_way(way: str) -> Iterator[Any]:
        import torch

        images, labels = torch.from_numpy(image), torch.from_numpy(label)
        return of_torch(n, lambda i: (scaled(images[i]), labels[i]), way)

    def take(i):
        return (scaled(image[i]), label[i])

    return {
        "pipeline": lambda: of_pipeline(
            ArrayPipeline({"image": image, "label": label}, batch=B, seed=0, prepare=prepare)
        ),
        "numpy": lambda: of_numpy(n, B, take),
        "torch": lambda: torch_way("item by item"),
        "torch_getitems": lambda: torch_way("batch by batch"),
    }


def windows(quick: bool) -> dict[str, Callable[[], Iterator[Any]]]:
    """Every window of a row of bytes: inputs, and targets one place on, as int32."""
    n = 20_000 if quick else 2_000_000
    tokens = np.random.default_rng(0).integers(0, 256, n, np.uint8)
    offsets = np.arange(T)

    def indexed(i):
        place = i[:, None] + offsets
        return tokens[place].astype(np.int32), tokens[place + 1].astype(np.int32)

    def stacked(i):
        both = np.stack([tokens[j : j + T + 1] for j in i.tolist()]).astype(np.int32)
        return both[:, :-1], both[:, 1:]

    return {
        "pipeline": lambda: of_pipeline(WindowPipeline(tokens, length=T, stride=1, batch=WINDOWS_B, seed=0)),
        "numpy": lambda: of_numpy(n - T, WINDOWS_B, indexed),
        "numpy_slices": lambda: of_numpy(n - T, WINDOWS_B, stacked),
    }


def feed(quick: bool) -> dict[str, Callable[[], Iterator[Any]]]:
    """Rows of 784 float32, on the device."""
    n = 2_000 if quick else 60_000
    draw = np.random.default_rng(0)
    arrays = {"image": draw.random((n, 784), np.float32), "label": draw.integers(0, 10, n)}

    def place(batch):
        return jax.block_until_ready(jax.device_put(batch))

    return {
        "feed": lambda: of_feed(ArrayPipeline(arrays, batch=B, seed=0)),
        "pipeline": lambda: map(place, of_pipeline(ArrayPipeline(arrays, batch=B, seed=0))),
        "numpy": lambda: map(place, of_numpy(n, B, lambda i: {name: x[i] for name, x in arrays.items()})),
    }


def indices(quick: bool) -> dict[str, Callable[[], Iterator[Any]]]:
    """Numbers of examples alone, for 500 batches at once; a unit is those 500."""

    def of(n):
        return ArrayPipeline({"x": np.zeros(n, np.float32)}, batch=B, seed=0)

    return {f"of_{n}": partial(of_indices, of(n), 500) for n in (1_000, 10_000, 1_000_000)}


CASES = {"floats": floats, "bytes": bytes_scaled, "windows": windows, "feed": feed, "indices": indices}


def run(name: str, args: argparse.Namespace) -> dict[str, Any]:
    streams, absent = CASES[name](args.quick), {}
    cases: dict[str, Timed] = {}
    iterators = []
    for way, make in streams.items():
        try:
            iterators.append(make())
            cases[way] = Timed(iterators[-1], args.seconds)
        except ImportError as error:
            absent[way] = str(error)
    got = measure.interleaved(cases, args.rounds, args.patience)
    for iterator in iterators:
        if hasattr(iterator, "close"):
            iterator.close()
    rows = {"windows": WINDOWS_B, "indices": 500 * B}.get(name, B)
    out: dict[str, Any] = {
        "batch_us": {way: measure.microseconds(got[way]) if way in got else None for way in streams},
        "examples_per_s": {
            way: measure.per_second(got[way], rows) if way in got else None for way in streams
        },
        "absent": absent,
        "foreign": measure.foreign(got),
    }
    if name == "indices":
        out["us_of_one_batch"] = {
            way: measure.spread([1e6 * r.seconds / 500 for r in got[way]]) for way in got
        }
    else:
        first = next(iter(streams))
        out[f"{first}_is_faster"] = {
            way: measure.ratio(got[way], got[first]) if way in got else None
            for way in streams
            if way != first
        }
    return out


def checks(cases: dict[str, Any], quick: bool) -> list[dict[str, Any]]:
    """What is required; nothing where the times are too short to tell."""
    out = []
    for name in ("floats", "bytes"):
        if name in cases:
            value = None if quick else cases[name]["pipeline_is_faster"]["numpy"]["median"]
            out.append(measure.check(f"{name}: examples/s of the pipeline / NumPy's", value, least=OF_NUMPY))
    if "indices" in cases:
        value = None if quick else cases["indices"]["us_of_one_batch"]["of_1000"]["median"]
        out.append(measure.check("indices of a batch of a small data set, us", value, most=INDICES_US))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--case", choices=tuple(CASES), action="append", help="only this one; may be repeated"
    )
    parser.add_argument("--rounds", type=int, default=0, help="5 or more; 1 when quick")
    parser.add_argument(
        "--patience", type=int, default=3, help="times as many rounds where the machine is busy"
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="of each way in each round")
    parser.add_argument("--quick", action="store_true", help="a smoke test: less data, one short round")
    args = parser.parse_args()
    args.rounds, args.patience = args.rounds or (1 if args.quick else 7), 1 if args.quick else args.patience
    args.seconds = args.seconds or (0.02 if args.quick else 1.0)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    cases = {}
    for name in args.case or CASES:
        measure.note(name)
        cases[name] = run(name, args)
    measure.report("input", args.quick, cases, checks(cases, args.quick))


if __name__ == "__main__":
    main()
