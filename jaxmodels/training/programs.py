"""The compiled programs of a run: k steps, on batches that come with each dispatch or a data set on the
device.

How many steps make a dispatch is measured; which steps those are is a function of the step alone (see
jaxmodels.training.schedule).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from jaxmodels.console import Console
from jaxmodels.experiment import Experiment
from jaxmodels.options import Options
from jaxmodels.parallel.compile import PMAP_AXIS, compile_step
from jaxmodels.parallel.placement import batch_sharding, split_positions
from jaxmodels.state import make_step
from jaxmodels.training import resident
from jaxmodels.training.batches import is_bucketed
from jaxmodels.training.check_batches import Checker
from jaxmodels.training.clock import Clock
from jaxmodels.training.failures import check_averaged
from jaxmodels.training.feed import Feed
from jaxmodels.training.metrics import pack
from jaxmodels.training.recompile import RecompilingProgram


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
        """Puts the whole data set on the device where that is wanted, possible and of use with k steps in a
        dispatch.
        """
        data = self.experiment.train
        wanted = resident.is_wanted(data, self.mesh, self.options.resident, k)
        if wanted and self.check is not None:
            self.check.everything()
        if wanted != self.resident:
            self.resident, self.dataset = wanted, resident.on_devices(data, self.mesh, wanted)

    @property
    def compiled(self) -> dict[int, Any]:
        """What is compiled already, by k."""
        return self._compiled[self.resident]

    def get(self, k: int, settle: Callable[[], None] = lambda: None) -> Any:
        """The compiled program of k steps.

        settle() is called before it is compiled, where that is still to do.
        """
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
        unpack = resident.unpack(experiment.train, self.resident, split)

        def packed_step(state, batch):
            new, metrics = one(state, batch)
            check_averaged(state, new)
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
        how: dict[str, Any] = {"leading": 1, "remat": options.remat}
        jitted = compile_step(dispatch, options.compile, self.mesh, self.shardings, **how)
        executable = jitted.lower(self.abstract, self.dataset, inputs).compile()
        return RecompilingProgram(
            executable, inputs, lambda arguments, why: self._compile_again(jitted, arguments, why)
        )

    def _compile_again(self, jitted: Any, arguments: Any, why: str) -> Any:
        if is_bucketed(self.experiment.train):
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
        with Feed(data, self.mesh, segment, resident=self.resident, depth=1, check=check) as feed:
            return next(feed.until()).inputs

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Shows what takes long, and counts it as compilation."""
        begun = time.perf_counter()
        with self.console.busy(what), self.clock.paused():
            yield
        self.compile_s += time.perf_counter() - begun
