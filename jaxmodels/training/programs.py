"""The compiled programs of a run: k steps, on batches that come with each dispatch or a data set on the device.

How many steps make a dispatch is measured; which steps those are is a function of the step alone (see
jaxmodels.training.schedule).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxmodels import step
from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.options import Options
from jaxmodels.parallel import processes
from jaxmodels.parallel.compile import PMAP_AXIS, compile_step
from jaxmodels.parallel.placement import batch_sharding, split_positions
from jaxmodels.state import make_step
from jaxmodels.training import feed as feeding
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.clock import Clock
from jaxmodels.training.metrics import pack
from jaxmodels.training.schedule import choose_k


class Programs:
    """Compiled steps of an experiment, by the number of steps in a dispatch, and the data that they share.

    names: of the training metrics, in the order in which the programs pack them; known after the first
        compilation.
    """

    def __init__(
        self,
        experiment: Experiment,
        options: Options,
        mesh: Mesh,
        abstract: Any,
        shardings: Any,
        console: Console,
        clock: Clock | None = None,
        check: Checker | None = None,
    ):
        self.check = check
        self.clock = clock or Clock()
        self.experiment, self.options, self.mesh, self.console = experiment, options, mesh, console
        self.abstract, self.shardings = abstract, shardings
        self.names: list[str] = []
        self.resident = False  # whether the data set lies on the device, and as what
        self.dataset: Any = {}
        self._compiled: dict[bool, dict[int, Any]] = {False: {}, True: {}}  # by resident, then by k
        self.compile_s = 0.0

    def lay_data(self, k: int) -> None:
        """Puts the whole data set on the device where that is wanted, possible and of use with k steps in a dispatch."""
        data, wish = self.experiment.train, self.options.resident
        fits = wish != "off" and feeding.can_reside(data)
        if wish == "on" and not fits:
            raise ValueError(
                "--resident on: this data set cannot lie on the device, because it is changed on the host for each batch or "
                f"is over {feeding.RESIDENT_BYTES >> 20} MiB, or has numbers that 32 bits do not hold; use --resident auto"
            )
        # A CPU's own memory holds the data anyway: there the gather of a long step is better left to the
        # feed's thread.
        on_cpu = self.mesh.devices.flat[0].platform == "cpu"
        resident = fits and (wish == "on" or not on_cpu or k > 1)
        if resident and self.check is not None:
            self.check.everything()
        if resident != self.resident:
            self.resident, self.dataset = resident, feeding.on_devices(data, self.mesh, resident)

    @property
    def compiled(self) -> dict[int, Any]:
        """What is compiled already, by k."""
        return self._compiled[self.resident]

    def get(self, k: int, settle: Callable[[], None] = lambda: None) -> Any:
        """The compiled program of k steps; settle() is called before it is compiled, where that is still to do."""
        if k not in self.compiled:
            settle()
            with self.timed(f"compiling the step{f' ({k} in one program)' if k > 1 else ''}"):
                self.compiled[k] = self._compile(k)
        return self.compiled[k]

    def texts(self) -> list[str]:
        """The programs as XLA has compiled them."""
        return [text for program in self.compiled.values() for text in program.texts()]

    def _compile(self, k: int) -> Any:
        experiment, options = self.experiment, self.options
        one = make_step(
            experiment,
            accumulate=options.accumulate,
            precision=options.precision,
            on_nan=options.on_nan,
            axis=PMAP_AXIS if options.compile == "pmap" else None,
        )
        split = batch_sharding(self.mesh, 1) if options.compile == "jit" else None
        on_device = jax.tree.map(lambda s: s.with_memory_kind("device"), self.shardings)
        unpack = feeding.unpack(experiment.train, self.resident, split)

        def packed_step(state, batch):
            new, metrics = one(state, batch)
            if state.averaged and all(new.averaged[path] is x for path, x in state.averaged.items()):
                raise ValueError(
                    "make_step: got a step that leaves State.averaged as it was, with averaged parameters and batch "
                    "statistics; expected the statistics of the averages after each batch. Build the step on "
                    "jaxmodels.step.make_step, which keeps them, or train without averages"
                )
            self.names = sorted(metrics)
            return new, pack(metrics)

        def dispatch(state, dataset, inputs):
            state = jax.device_put(state, on_device) if options.offload != "nothing" else state
            batches = unpack(dataset, inputs)
            if options.compile == "jit":
                batches = split_positions(batches, self.mesh, leading=1)
            if k > 1:
                return jax.lax.scan(packed_step, state, batches)
            state, metrics = packed_step(state, jax.tree.map(lambda x: x[0], batches))
            return state, metrics[None]

        dispatch.__name__ = f"steps_{k}"  # as traces call it
        inputs = self.inputs(range(k))
        jitted = compile_step(
            dispatch, options.compile, self.mesh, self.shardings, leading=1, remat=options.remat
        )
        executable = jitted.lower(self.abstract, self.dataset, inputs).compile()
        return RecompilingProgram(
            executable, inputs, lambda arguments, why: self._compile_again(jitted, arguments, why)
        )

    def _compile_again(self, jitted: Any, arguments: Any, why: str) -> Any:
        if feeding.is_bucketed(self.experiment.train):
            now = why.partition(", is ")[2].partition(";")[0]
            with self.timed(f"compiling the step for batches of another length: {now}"):
                return jitted.lower(*arguments).compile()
        self.console.warn(f"the step is compiled again, because the batch has changed: {why}")
        with self.clock.paused():
            return jitted.lower(*arguments).compile()

    def inputs(self, steps: range) -> Any:
        """The input of a dispatch, read and placed on the devices here and now."""
        segment = [(steps.start, steps.stop)]
        data, check = self.experiment.train, self.check
        with feeding.Feed(data, self.mesh, segment, resident=self.resident, depth=1, check=check) as feed:
            return next(feed.until()).inputs

    def measure_k(self, state: step.State, events: tuple[int, ...]) -> int:
        """Steps in one dispatch, from the time of single steps; 1 where many in one program are not faster.

        They can be far slower: XLA has its fast convolutions on CPUs for the outermost program alone, not in
        a scan.
        """
        if feeding.is_bucketed(self.experiment.train):
            return 1
        single = self._seconds(1, state)
        k = choose_k(single, self._batch_bytes(), events)
        return k if k == 1 or self._seconds(k, state) < k * single else 1

    def _seconds(self, k: int, state: step.State) -> float:
        """The time of a dispatch of k steps, on a copy of the state, as process 0 has measured it."""
        self.lay_data(k)
        program, inputs = self.get(k), self.inputs(range(k))
        scratch, times = jax.tree.map(jnp.copy, state), []
        for _ in range(4):
            begun = time.perf_counter()
            scratch, _ = program(scratch, self.dataset, inputs)
            jax.block_until_ready(scratch)
            times.append(time.perf_counter() - begun)
        return processes.on_first_process(lambda: min(times[1:]))

    def _batch_bytes(self) -> int:
        return self.experiment.train.batch * sum(
            math.prod(shape) * np.dtype(dtype).itemsize
            for shape, dtype in self.experiment.train.spec.values()
        )

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Shows what takes long, and counts it as compilation."""
        begun = time.perf_counter()
        with self.console.busy(what), self.clock.paused():
            yield
        self.compile_s += time.perf_counter() - begun


class RecompilingProgram:
    """A compiled program that is compiled again where the batch's shapes or types change, and says how they did.

    compile(arguments, change) gives the program for these arguments; each is kept.
    """

    def __init__(self, executable: Any, inputs: Any, compile: Callable[[Any, str], Any]):
        self._compile, self._last = compile, _signature(inputs)
        self._executables = [(self._last, executable)]

    def texts(self) -> list[str]:
        """The program's text for each kind of arguments."""
        return [executable.as_text() for _, executable in self._executables]

    def __call__(self, state: Any, dataset: Any, inputs: Any) -> Any:
        """The program on these arguments; the state's buffers are given away."""
        signature = _signature(inputs)
        executable = next((known for of, known in self._executables if of == signature), None)
        if executable is None:

            def show(of, name):
                return f"{of[name][0]}{list(of[name][1])}" if name in of else "absent"

            changes = [
                f"{name} was {show(self._last, name)}, is {show(signature, name)}"
                for name in sorted({*self._last, *signature})
                if self._last.get(name) != signature.get(name)
            ]
            executable = self._compile((state, dataset, inputs), "; ".join(changes))
            self._executables.append((signature, executable))
        self._last = signature
        return executable(state, dataset, inputs)


def _signature(inputs: Any) -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Type and shape of each array of a dispatch, without the axis of steps; compared at every dispatch, so kept cheap."""
    if not isinstance(inputs, dict):
        return {"indices": (inputs.dtype, inputs.shape[1:])}
    return {f"batch[{name!r}]": (x.dtype, x.shape[1:]) for name, x in inputs.items()}
