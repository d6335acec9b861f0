"""What is known of an Experiment without its source: its arrays, some settings, a digest of its traced step.

The digest is of every operation, constant and shape of the step, and of no name, line or address, so it is
the same in every process. Another JAX may trace the same code to other operations, so digests are compared
within one version and backend.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from jaxmodels import step
from jaxmodels.experiment import Experiment
from jaxmodels.runs.arrays import types_of
from jaxmodels.state import empty_batch, make_step

LENGTHENED = (
    "log_every",
    "eval_every",
)  # what may hang on how long a run is, as the step does by its schedules
STEP = "step traced by "
SHOWN = 8  # differences


def described(experiment: Experiment, precision: str) -> dict[str, str]:
    """What is known, by name, as text or as a digest; less where the experiment cannot be traced."""
    found = {"precision": precision, "batch": str(experiment.train.batch)}
    found |= {name: str(getattr(experiment, name)) for name in LENGTHENED}
    try:
        # The order depends on the pipeline's seed, which no example shows.
        if (indices := experiment.train.indices(0, 0, experiment.train.batch)) is not None:
            digits = hashlib.sha256(np.asarray(indices, np.int64).tobytes()).hexdigest()
            found["examples of the first batch"] = digits[:8]

        def one():
            return empty_batch(experiment.train, 1)

        state = jax.eval_shape(
            lambda: step.init(experiment.task, experiment.optimizer, experiment.seed, one())
        )
        batch = jax.eval_shape(lambda: empty_batch(experiment.train, 2))
        found |= types_of(state._asdict() | {"data": batch})
        one_step = make_step(experiment)
        found[f"{STEP}jax {jax.__version__} for {jax.default_backend()}"] = digest(
            jax.make_jaxpr(one_step)(state, batch)
        )
    except Exception:  # whoever trains it says in words what is wrong
        return found
    return found


def differences(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """What is known to differ, in sentences; nothing where one of the two is not known at all."""
    names = changed(before, after)
    arrays = [n for n in names if not n.startswith(STEP)]
    said = [
        f"{n}: {before.get(n, '(absent)')} there, {after.get(n, '(absent)')} here" for n in arrays[:SHOWN]
    ]
    if len(arrays) > SHOWN:
        said.append(f"… and {len(arrays) - SHOWN:,} more")
    if names and not arrays:
        said.append("the step: another function, rate or constant, on the same arrays")
    return said


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """The names of what differs."""
    names = [n for n in {**before, **after} if before.get(n) != after.get(n)] if before and after else []
    return [n for n in names if not n.startswith(STEP) or (n in before and n in after)]


def is_longer(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether nothing differs but what may where a run is made longer."""
    return all(n in LENGTHENED or n.startswith(STEP) for n in changed(before, after))


def stored(value: Any) -> dict[str, str]:
    """What a run's folder says, without what cannot be."""
    return {n: x for n, x in value.items() if isinstance(x, str)} if isinstance(value, dict) else {}


def digest(closed: ClosedJaxpr) -> str:
    """Of a traced function."""
    return _Digests().closed(closed)[:32]


class _Digests:
    """Digests of jaxprs; of one that is called in several places once."""

    def __init__(self) -> None:
        self._known: dict[int, str] = {}

    def closed(self, closed: ClosedJaxpr) -> str:
        return _sha256([self.jaxpr(closed.jaxpr), [self.value(x) for x in closed.consts]])

    def jaxpr(self, jaxpr: Jaxpr) -> str:
        if id(jaxpr) not in self._known:
            self._known[id(jaxpr)] = _sha256(self._lines(jaxpr))
        return self._known[id(jaxpr)]

    def _lines(self, jaxpr: Jaxpr) -> list[Any]:
        numbers: dict[Any, int] = {}

        def of(x: Any) -> Any:
            return self.value(x.val) if isinstance(x, Literal) else numbers.setdefault(x, len(numbers))

        def typed(variables: Any) -> list[Any]:
            return [[of(x), str(x.aval)] for x in variables]

        lines: list[Any] = [typed(jaxpr.constvars), typed(jaxpr.invars)]
        for eqn in jaxpr.eqns:
            how = {
                name: self.value(x)
                for name, x in sorted(eqn.params.items())
                if name not in ("name", "debug_info")
            }
            lines.append([eqn.primitive.name, how, [of(x) for x in eqn.invars], typed(eqn.outvars)])
        return [*lines, [of(x) for x in jaxpr.outvars]]

    def value(self, x: Any) -> Any:
        """As JSON, without names and addresses of functions."""
        if isinstance(x, ClosedJaxpr):
            return self.closed(x)
        if isinstance(x, Jaxpr):
            return self.jaxpr(x)
        if isinstance(x, dict):
            return sorted([str(name), self.value(one)] for name, one in x.items())
        if isinstance(x, set | frozenset):
            return sorted(json.dumps(self.value(one)) for one in x)
        if isinstance(x, tuple | list):
            return [self.value(one) for one in x]
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            x = jax.random.key_data(x)
        if isinstance(x, np.ndarray | np.generic | jax.Array):
            data = np.asarray(x)
            return [
                str(data.dtype),
                list(data.shape),
                hashlib.sha256(np.ascontiguousarray(data).tobytes()).hexdigest(),
            ]
        if isinstance(x, bool | int | float | complex | str | bytes | None):
            return repr(x)
        if isinstance(x, Callable) and not isinstance(x, type):  # type: ignore[arg-type]
            return "function"
        return re.sub(r" at 0x[0-9a-f]+", "", str(x))


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()
