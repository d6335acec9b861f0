"""Which knobs can be inputs of one compiled program, and which members then share one.

A float knob can where `build` and all that it makes can be traced with a traced number in its place. So can
the knob that is the experiment's seed, where only the parameters' first values and the order of the data
depend on it.
"""

from __future__ import annotations

import dataclasses
import functools
import traceback
import types
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmodels import step
from jaxmodels.experiment import Experiment, as_evaluation
from jaxmodels.options import Options
from jaxmodels.runs.experiment_file import File
from jaxmodels.state import as_dtype, empty_batch, initial, make_step

COUNTS = ("steps", "eval_every", "checkpoint_every", "log_every")


class Group(NamedTuple):
    """Members of one compiled program. indices: among all members. inputs: the program's float knobs."""

    indices: tuple[int, ...]
    inputs: tuple[str, ...]


def groups(file: File, configs: Sequence[Any], options: Options) -> tuple[list[Group], list[str]]:
    """(the groups, notes on knobs of which each value is compiled)."""
    names = [f.name for f in dataclasses.fields(file.config)]
    varying = [name for name in names if len({repr(getattr(c, name)) for c in configs}) > 1]
    floats = [name for name in varying if all(type(getattr(c, name)) is float for c in configs)]
    experiments = [file.build(c) for c in configs]
    experiment_seeds = [e.seed for e in experiments]
    seeds = [name for name in varying if [getattr(c, name) for c in configs] == experiment_seeds]
    notes: dict[str, str] = {}
    by_program: dict[Any, tuple[list[int], tuple[str, ...]]] = {}
    by_structure: dict[str, list[int]] = {}
    for i, config in enumerate(configs):
        by_structure.setdefault(_rest(config, [*floats, *seeds], names), []).append(i)
    for same_structure in by_structure.values():
        first = configs[same_structure[0]]
        inputs = []
        for name in floats:
            problem = tracing_fault(file, first, (name,), options)
            if problem is None:
                inputs.append(name)
            else:
                notes[name] = problem
        if len(inputs) > 1 and (problem := tracing_fault(file, first, tuple(inputs), options)):
            notes[", ".join(inputs)], inputs = problem, []
        free = list(inputs)
        others = [i for i in same_structure if experiments[i].seed != experiments[same_structure[0]].seed]
        if seeds and others:
            other = dataclasses.replace(first, **{name: getattr(configs[others[0]], name) for name in seeds})
            if _program(file.build(first), options) == _program(file.build(other), options):
                free += seeds
            else:
                notes[seeds[0]] = f"{seeds[0]} changes the program itself, so each of its values is compiled"
        for i in same_structure:
            counts = tuple(getattr(experiments[i], count) for count in COUNTS)
            key = (_rest(configs[i], free, names), counts, experiments[i].train.batch)
            by_program.setdefault(key, ([], tuple(inputs)))[0].append(i)
    return [Group(tuple(indices), inputs) for indices, inputs in by_program.values()], list(notes.values())


def _rest(config: Any, free: Sequence[str], names: Sequence[str]) -> str:
    """The values of the knobs that are not free."""
    return repr([getattr(config, name) for name in names if name not in free])


def tracing_fault(file: File, config: Any, names: tuple[str, ...], options: Options) -> str | None:
    """Why these float knobs cannot be inputs of a program, in a sentence; None where they can."""

    def build_and_step(values: dict[str, Any]) -> Any:
        experiment = file.build(dataclasses.replace(config, **values))
        for field in ("train", "evals", *COUNTS, "seed"):
            if _holds_tracer(getattr(experiment, field)):
                raise TypeError(f"the experiment's {field} depends on it")
        return _step(experiment, options)

    try:
        jax.eval_shape(build_and_step, {name: jax.ShapeDtypeStruct((), jnp.float32) for name in names})
    except Exception as error:  # of the user's file or of what it calls
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file.path)]
        where = f"line {lines[-1]} of {file.path}" if lines else str(file.path)
        reason = str(error).strip().splitlines()[0].rstrip(".:")[:160]
        knobs = " and ".join(names)
        fault = f"{knobs} cannot be an input of one program, each of its values is compiled"
        return f"{fault}: at {where}, {reason}"
    return None


def _step(experiment: Experiment, options: Options) -> Any:
    """A first state, a step from it and an evaluation of each kind, to be traced."""
    state = initial(experiment)
    after = one_step(experiment, options)(state, empty_batch(experiment.train, 2 * options.accumulate))
    params, extra = step.eval_variables(experiment.optimizer, state)
    evaluate = step.make_evaluate(experiment.task, precision=as_dtype(options.precision))
    batches = [empty_batch(as_evaluation(evaluation).data, 2) for evaluation in experiment.evals.values()]
    return after, [evaluate(params, extra, batch) for batch in batches]


def one_step(experiment: Experiment, options: Options) -> Any:
    """The training step of an experiment; a state that is not finite stays as it was."""
    return make_step(experiment, accumulate=options.accumulate, precision=options.precision, on_nan="stop")


def _program(experiment: Experiment, options: Options) -> tuple[str, list[bytes]]:
    """The text and the constants of the traced program, without the seed."""
    closed = jax.make_jaxpr(lambda: _step(dataclasses.replace(experiment, seed=0), options))()
    return str(closed.jaxpr), [np.asarray(c).tobytes() for c in closed.consts if not _is_key(c)]


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


# Parts of an object


def same(a: Any, b: Any) -> bool:
    """Whether two pipelines certainly give the same data: all their parts are equal. In doubt they do not."""
    return _same(a, b, set())


def _same(a: Any, b: Any, visited: set[tuple[int, int]]) -> bool:
    if a is b or (id(a), id(b)) in visited:
        return True
    visited.add((id(a), id(b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.dtype != object and bool(np.array_equal(a, b))
    if isinstance(a, types.FunctionType) and a.__code__ is not b.__code__:
        return False
    parts_a, parts_b = list(_parts(a)), list(_parts(b))
    if parts_a or parts_b:
        if [name for name, _ in parts_a] != [name for name, _ in parts_b]:
            return False
        return all(_same(x, y, visited) for (_, x), (_, y) in zip(parts_a, parts_b, strict=True))
    try:
        return bool(a == b)
    except Exception:
        return False


def _holds_tracer(thing: Any, visited: set[int] | None = None) -> bool:
    visited = set() if visited is None else visited
    if isinstance(thing, jax.core.Tracer):
        return True
    if id(thing) in visited:
        return False
    visited.add(id(thing))
    return any(_holds_tracer(part, visited) for _, part in _parts(thing))


def _parts(thing: Any) -> Iterator[tuple[Any, Any]]:
    """(name, part) of an object's parts; nothing for values, classes and modules."""
    if isinstance(thing, dict):
        yield from thing.items()
    elif isinstance(thing, list | tuple):
        yield from enumerate(thing)
    elif isinstance(thing, functools.partial):
        yield from (("func", thing.func), ("args", thing.args), ("keywords", thing.keywords))
    elif isinstance(thing, types.MethodType):
        yield from (("func", thing.__func__), ("self", thing.__self__))
    elif isinstance(thing, types.FunctionType):
        yield from (("defaults", thing.__defaults__), ("kwdefaults", thing.__kwdefaults__))
        for name, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            yield name, cell.cell_contents
    elif not isinstance(thing, type | types.ModuleType) and hasattr(thing, "__dict__"):
        yield from vars(thing).items()
