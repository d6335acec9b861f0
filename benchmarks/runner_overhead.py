"""What the runner costs beside a jitted loop over the same step, and a tiny MLP against Keras and PyTorch.

    python benchmarks/runner_overhead.py            # all cases
    python benchmarks/runner_overhead.py --case gpt --rounds 9
    python benchmarks/runner_overhead.py --quick    # does it work at all

The bare loop calls the jitted step (state donated, dispatched ahead, waited for at the end) on a few batches
that lie on the device already: no reading, no metrics fetched, no log. It is timed in the pauses of one run
of the runner, a second or two of one and then of the other, since a virtual machine's speed drifts. Keras,
PyTorch and the runner are timed in interleaved rounds; there the runner's time is that between its calls of
on_step, without the first quarter of them. It chooses by itself how many steps make a dispatch, as in a long
run. All run with huge pages of memory where Linux offers them, as the command jaxmodels does. Keras and
PyTorch are left out where they are not installed. The last line of stdout is JSON.

Dimensions: B batch, S steps.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import measure
import numpy as np

from jaxmodels import optim
from jaxmodels.data.pipeline import ArrayPipeline, WindowPipeline
from jaxmodels.experiment import Experiment
from jaxmodels.launch import hugepages
from jaxmodels.models.cnn import CNN
from jaxmodels.models.gpt import GPT
from jaxmodels.models.mlp import MLP
from jaxmodels.options import Options
from jaxmodels.runs.definition import RunDefinition
from jaxmodels.runs.folder import Folder
from jaxmodels.state import initial
from jaxmodels.step import State, make_step
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.regress import regress
from jaxmodels.training import runner

LONG_STEP = 0.005  # seconds; from here on the runner may cost OVERHEAD
OVERHEAD = 1.02
OVER_KERAS, OVER_TORCH = 3.0, 9.0
RATE = 1e-3
runner.WORTH = (
    1 << 6
)  # each round is a piece of a long run, for which it is worth it to measure steps_per_dispatch
EXAMPLES = {"tiny-1000": 1_000, "tiny-10000": 10_000}


# The experiments; data of the real shapes, drawn at random


def digits(quick: bool) -> Experiment:
    draw = np.random.default_rng(0)
    arrays = {"image": draw.random((1_437, 64), np.float32), "label": draw.integers(0, 10, 1_437, np.int32)}
    return _experiment(classify(MLP((128, 128), 10)), ArrayPipeline(arrays, batch=128, seed=0))


def mnist(quick: bool) -> Experiment:
    """Near the length of step from which the runner may cost little: 784-512-512-10, 400 kB a batch."""
    draw, n = np.random.default_rng(0), 500 if quick else 20_000
    arrays = {"image": draw.random((n, 784), np.float32), "label": draw.integers(0, 10, n, np.int32)}
    return _experiment(classify(MLP((512, 512), 10)), ArrayPipeline(arrays, batch=128, seed=0))


def cnn(quick: bool) -> Experiment:
    draw, n = np.random.default_rng(0), 500 if quick else 10_000
    arrays = {"image": draw.random((n, 28, 28, 1), np.float32), "label": draw.integers(0, 10, n, np.int32)}
    model = CNN(10, channels=(2, 2) if quick else (16, 32))
    return _experiment(classify(model), ArrayPipeline(arrays, batch=128, seed=0))


def gpt(quick: bool) -> Experiment:
    length, width, depth = (16, 16, 1) if quick else (128, 128, 4)
    tokens = np.random.default_rng(0).integers(0, 256, 500_000, np.uint8)
    model = GPT(256, length, width, depth, 4, unroll=depth)
    return _experiment(next_token(model), WindowPipeline(tokens, length=length, stride=1, batch=16, seed=0))


def tiny(n: int) -> Experiment:
    arrays = dict(zip(("features", "target"), tiny_arrays(n), strict=True))
    return _experiment(regress(MLP((10, 10), 1)), ArrayPipeline(arrays, batch=128, seed=0))


def tiny_arrays(n: int) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).random((n, 10), np.float32)
    return x, (10 * np.sin(np.pi * x[:, :1] * x[:, 1:2]) + 20 * (x[:, 2:3] - 0.5) ** 2).astype(np.float32)


def _experiment(task: Any, train: Any) -> Experiment:
    return Experiment(task=task, optimizer=optim.adam(RATE), train=train, steps=1)


LARGER = {"digits": digits, "mnist": mnist, "cnn": cnn, "gpt": gpt}


# What is timed: each gives the seconds of one step


class Runner:
    """The library's runner, from `runner.run`."""

    def __init__(
        self,
        experiment: Experiment,
        steps: int,
        in_folder: bool,
        on_step: Callable[[int], None] | None = None,
    ):
        self.experiment = Experiment(**{**vars(experiment), "steps": steps})
        self.on_step = on_step
        self.in_folder = in_folder
        self.train_s: list[float] = []  # seconds of a step, as the runner itself reports them
        self.dispatched: list[int] = []  # steps in a dispatch
        self.result: runner.Result | None = None

    def warm_up(self) -> None:
        """Fills the compilation cache."""
        self()
        self.train_s.clear()
        self.dispatched.clear()
        gc.collect()

    def __call__(self) -> float:
        calls: list[tuple[int, float]] = []
        on_step = self.on_step or (lambda n: calls.append((n, time.perf_counter())))
        run = partial(runner.run, self.experiment, Options(), on_step=on_step)
        if self.in_folder:
            with tempfile.TemporaryDirectory() as path:
                folder = Folder(Path(path) / "run", keep=1)
                folder.open(RunDefinition("", {}, {}))
                self.result = run(folder=folder)
                folder.close()
        else:
            self.result = run()
        self.dispatched.append(self.result.summary["steps_per_dispatch"])
        self.train_s.append(self.result.summary["train_s"] / self.experiment.steps)
        (first, begun), (last, ended) = calls[len(calls) // 4], calls[-1]
        return (ended - begun) / (last - first) if last > first else self.train_s[-1]


class Bare:
    """A loop over the jitted step, dispatched by jax.jit or, if compiled and faster, as the executable."""

    def __init__(self, experiment: Experiment, steps: int = 0):
        self.experiment, self.steps = experiment, steps
        step = make_step(experiment.task, experiment.optimizer)
        self.jitted = jax.jit(step, donate_argnums=0)
        data = experiment.train
        self.batches = [jax.device_put(data.rows(n, 0, data.batch)) for n in range(8)]
        self.state = self.start()
        lowered = self.jitted.lower(self.state, self.batches[0]).compile()
        self.compiled = min((self.jitted, lowered), key=lambda f: min(self._time(f, 3) for _ in range(3)))

    def start(self) -> State:
        return jax.jit(partial(initial, self.experiment))()

    def _time(self, compiled: Callable, steps: int) -> float:
        state, batches, count = self.state, self.batches, len(self.batches)
        begun = time.perf_counter()
        for i in range(steps):
            state, metrics = compiled(state, batches[i % count])
        jax.block_until_ready((state, metrics))
        took = time.perf_counter() - begun
        self.state = state
        return took / steps

    def __call__(self) -> float:
        return self._time(self.compiled, self.steps)


class Scan:
    """One program for a pass over batches that were gathered before the clock starts."""

    def __init__(self, experiment: Experiment, steps: int):
        data = experiment.train
        step = make_step(experiment.task, experiment.optimizer)
        rows = [data.rows(n, 0, data.batch) for n in range(data.steps)]
        self.batches_SB = jax.device_put({name: np.stack([r[name] for r in rows]) for name in rows[0]})
        self.scan = jax.jit(lambda state, batches_SB: jax.lax.scan(step, state, batches_SB), donate_argnums=0)
        self.state = jax.jit(partial(initial, experiment))()
        self.each, self.passes = len(rows), max(1, steps // len(rows))
        self.state, _ = jax.block_until_ready(self.scan(self.state, self.batches_SB))

    def __call__(self) -> float:
        begun = time.perf_counter()
        for _ in range(self.passes):
            self.state, metrics = self.scan(self.state, self.batches_SB)
        jax.block_until_ready((self.state, metrics))
        return (time.perf_counter() - begun) / (self.passes * self.each)


class Keras:
    """`fit` on the JAX backend with its defaults; the first pass, which traces, is not counted."""

    def __init__(self, n: int, steps: int):
        import keras

        if keras.backend.backend() != "jax":
            raise ImportError(f"Keras runs on {keras.backend.backend()}, wanted jax: set KERAS_BACKEND=jax")
        dense = keras.layers.Dense
        self.model = keras.Sequential([keras.Input((10,)), dense(10, "relu"), dense(10, "relu"), dense(1)])
        self.model.compile(optimizer=keras.optimizers.Adam(RATE), loss="mse")
        self.data = tiny_arrays(n)
        self.each = -(-n // 128)
        self.passes = max(2, steps // self.each)
        self.ends: list[float] = []
        self.callback = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda *_: self.ends.append(time.perf_counter())
        )
        self.fit(3)

    def fit(self, passes: int) -> None:
        self.ends.clear()
        self.model.fit(*self.data, batch_size=128, epochs=passes, verbose=0, callbacks=[self.callback])

    def __call__(self) -> float:
        self.fit(self.passes + 1)
        return (self.ends[-1] - self.ends[0]) / (self.passes * self.each)


class Torch:
    """The plain eager loop, on two threads, with denormals flushed as XLA does. fused: Adam in one kernel."""

    def __init__(self, n: int, steps: int, fused: bool | None = None):
        import torch

        torch.set_flush_denormal(True)
        torch.set_num_threads(min(2, os.cpu_count() or 1))
        torch.manual_seed(0)
        self.torch, self.n = torch, n
        linear, relu = torch.nn.Linear, torch.nn.ReLU
        self.model = torch.nn.Sequential(linear(10, 10), relu(), linear(10, 10), relu(), linear(10, 1))
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=RATE, fused=fused)
        self.loss = torch.nn.MSELoss()
        self.x, self.y = map(torch.from_numpy, tiny_arrays(n))
        self.each = -(-n // 128)
        self.passes = max(1, steps // self.each)
        self.train(1)

    def train(self, passes: int) -> None:
        for _ in range(passes):
            for rows in self.torch.randperm(self.n).split(128):
                self.optimizer.zero_grad()
                self.loss(self.model(self.x[rows]), self.y[rows]).backward()
                self.optimizer.step()

    def __call__(self) -> float:
        begun = time.perf_counter()
        self.train(self.passes)
        return (time.perf_counter() - begun) / (self.passes * self.each)


# The cases


def agreement(experiment: Experiment, bare: Bare) -> float:
    """The distance of runner and bare step after 3 steps of the same data, relative to how far they went.

    A benchmark of two loops that do not compute the same is none. Rounding, which Adam makes much of, is
    left.
    """
    ours = Runner(experiment, 3, False)
    ours()
    state = begin = bare.start()
    begin = jax.tree.map(np.asarray, begin.params)
    for n in range(3):
        state, _ = bare.compiled(state, jax.device_put(experiment.train.rows(n, 0, experiment.train.batch)))

    def flat(tree):
        return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])

    assert ours.result is not None
    moved = np.linalg.norm(flat(state.params) - flat(begin))
    return float(np.linalg.norm(flat(ours.result.state.params) - flat(state.params)) / moved)


class Enough(Exception):
    """Ends a run of the runner from its own callback."""


class Pairs:
    """In one run of the runner, repeatedly: a few steps of it, and as many of the bare loop while it waits.

    So both are timed within a second or two of each other: over longer a virtual machine's speed drifts by
    more than what is looked for. The runner's steps are counted from the first dispatch after a pause to the
    last, as it goes on from there.
    """

    def __init__(self, bare: Bare, each: float, steps: int, rounds: int):
        self.bare, self.each, self.steps, self.rounds = bare, each, steps, rounds
        self.calls: list[tuple[int, float]] = []
        self.got: dict[str, list[measure.Round]] = {"runner": [], "bare": []}
        self.k = 1
        self.watch = measure.Watch()

    def __call__(self, n: int) -> None:
        """The runner's on_step."""
        self.calls.append((n, time.perf_counter()))
        if len(self.calls) == 1:
            self.watch.__enter__()
            return
        (first, begun), (before, _), (last, ended) = self.calls[0], self.calls[-2], self.calls[-1]
        if last - first < self.steps:
            return
        self.watch.__exit__()
        self.k = last - before
        self.got["runner"].append(measure.Round((ended - begun) / (last - first), self.watch.foreign))
        time.sleep(2 * self.k * self.each)  # what was dispatched last still runs
        self.bare.steps = last - first
        with measure.Watch() as watch:
            seconds = self.bare()
        self.got["bare"].append(measure.Round(seconds, watch.foreign))
        self.calls.clear()
        if len(self.got["bare"]) > self.rounds:
            raise Enough


def overhead(experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """The runner against the bare loop."""
    bare = Bare(experiment)
    bare.steps = 10
    each = min(bare() for _ in range(1 if args.quick else 3))
    pairs = Pairs(bare, each, max(5, int(args.seconds / each / 4)), 1 if args.quick else 6 * args.rounds)
    with contextlib.suppress(Enough):
        Runner(experiment, 10**9, args.folder, pairs)()
    got = {name: rounds[1:] for name, rounds in pairs.got.items()}  # the first pair warms up
    ratios = measure.ratio(got["runner"], got["bare"])
    measure.note(f"  {len(got['bare'])} pairs of {bare.steps} steps: {ratios}")
    return {
        "pairs": len(got["bare"]),
        "steps": bare.steps,
        "step_us": {name: measure.microseconds(rounds) for name, rounds in got.items()},
        "steps_per_dispatch": pairs.k,
        "bare": "jit" if bare.compiled is bare.jitted else "compiled executable",
        "ratio": ratios,
        "agreement": agreement(experiment, bare),
        "foreign": measure.foreign(got),
    }


def against_peers(n: int, args: argparse.Namespace) -> dict[str, Any]:
    """The tiny MLP, every way."""
    experiment = tiny(n)
    steps = 200 if args.quick else int(args.seconds / 50e-6)
    few = 50 if args.quick else steps // 5  # the slow ones
    ours = Runner(experiment, steps, args.folder)
    cases: dict[str, Any] = {"runner": ours, "bare": Bare(experiment, steps), "scan": Scan(experiment, steps)}
    makers: dict[str, Callable] = {
        "keras": partial(Keras, n, few),
        "torch": partial(Torch, n, few),
        "torch_fused_adam": partial(Torch, n, few, True),
    }
    reasons = {}
    for name, make in makers.items():
        try:
            cases[name] = make()
        except ImportError as error:
            reasons[name] = str(error)
    if not args.quick:
        ours.warm_up()
    got = measure.interleaved(cases, args.rounds, args.patience)
    entries = [*cases, *reasons]
    return {
        "steps": steps,
        "step_us": {name: measure.microseconds(got[name]) if name in got else None for name in entries},
        "steps_per_s": {name: measure.per_second(got[name]) if name in got else None for name in entries},
        "runner_is_faster": {
            name: measure.ratio(got[name], got["runner"]) if name in got else None
            for name in entries
            if name != "runner"
        },
        "train_s_us": measure.spread([1e6 * s for s in ours.train_s]),
        "steps_per_dispatch": ours.dispatched,
        "absent": reasons,
        "foreign": measure.foreign(got),
    }


def checks(cases: dict[str, Any], quick: bool) -> list[dict[str, Any]]:
    """What is required; of times, nothing where they are too short to tell."""
    out = []
    for name, case in cases.items():
        if "ratio" in case:
            if case["step_us"]["bare"]["median"] >= 1e6 * LONG_STEP:
                value = None if quick else case["ratio"]["median"]
                out.append(measure.check(f"{name}: runner / bare loop", value, most=OVERHEAD))
            out.append(
                measure.check(f"{name}: runner and bare loop compute the same", case["agreement"], most=0.01)
            )
        else:
            for peer, wanted in (("keras", OVER_KERAS), ("torch", OVER_TORCH)):
                faster = case["runner_is_faster"][peer]
                value = None if quick or not faster else faster["median"]
                out.append(measure.check(f"{name}: times {peer}", value, least=wanted))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = (*LARGER, *EXAMPLES)
    parser.add_argument("--case", choices=names, action="append", help="only this one; may be repeated")
    parser.add_argument("--rounds", type=int, default=0, help="5 or more; 1 when quick")
    parser.add_argument(
        "--patience", type=int, default=3, help="times as many rounds where the machine is busy"
    )
    parser.add_argument("--seconds", type=float, default=0.0, help="of each case in each round")
    parser.add_argument("--folder", action="store_true", help="let the runner write a run's folder")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: smaller models, one round, few steps"
    )
    args = parser.parse_args()
    args.rounds, args.patience = args.rounds or (1 if args.quick else 7), 1 if args.quick else args.patience
    args.seconds = args.seconds or (0.05 if args.quick else 4.0)

    with tempfile.TemporaryDirectory() as cache:  # so that each round compiles nothing new
        if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
            jax.config.update("jax_compilation_cache_dir", cache)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        jax.block_until_ready(jnp.zeros(()))
        cases: dict[str, Any] = {}
        for name in args.case or names:
            measure.note(name)
            if name in EXAMPLES:
                cases[name] = against_peers(EXAMPLES[name], args)
            else:
                cases[name] = overhead(LARGER[name](args.quick), args)
        measure.report("runner_overhead", args.quick, cases, checks(cases, args.quick))


if __name__ == "__main__":
    hugepages.restart()
    main()
