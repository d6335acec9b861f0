"""Which knobs can be inputs of one compiled program, and which members then share one.

A float knob can, where `build` and all that it makes go through with a traced number in its place. So can the
knob that is the experiment's seed, where nothing but the parameters' first values and the order of the data
hang on it.
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
    """Members of one compiled program. at: their places among all. inputs: float knobs that the program takes."""

    at: tuple[int, ...]
    inputs: tuple[str, ...]


def groups(file: File, configs: Sequence[Any], options: Options) -> tuple[list[Group], list[str]]:
    """(the groups, sentences on knobs that had to be compiled one by one)."""
    names = [f.name for f in dataclasses.fields(file.config)]
    varying = [name for name in names if len({repr(getattr(c, name)) for c in configs}) > 1]
    floats = [name for name in varying if all(type(getattr(c, name)) is float for c in configs)]
    experiments = [file.build(c) for c in configs]
    seeds = [
        name
        for name in varying
        if all(getattr(c, name) == e.seed for c, e in zip(configs, experiments, strict=True))
    ]
    notes: dict[str, str] = {}
    found: dict[Any, tuple[list[int], tuple[str, ...]]] = {}
    for same_structure in _by(range(len(configs)), lambda i: _rest(configs[i], [*floats, *seeds], names)):
        first = configs[same_structure[0]]
        inputs = []
        for name in floats:
            problem = fault(file, first, (name,), options)
            if problem is None:
                inputs.append(name)
            else:
                notes[name] = problem
        if len(inputs) > 1 and (problem := fault(file, first, tuple(inputs), options)):
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
            found.setdefault(key, ([], tuple(inputs)))[0].append(i)
    return [Group(tuple(at), inputs) for at, inputs in found.values()], list(notes.values())


def _by(items: Any, key: Any) -> list[list[Any]]:
    parts: dict[Any, list[Any]] = {}
    for item in items:
        parts.setdefault(key(item), []).append(item)
    return list(parts.values())


def _rest(config: Any, free: Sequence[str], names: Sequence[str]) -> str:
    return repr([getattr(config, name) for name in names if name not in free])


def fault(file: File, config: Any, names: tuple[str, ...], options: Options) -> str | None:
    """Why these float knobs cannot be inputs of a program, in a sentence; None where they can."""

    def whole(values: dict[str, Any]) -> Any:
        experiment = file.build(dataclasses.replace(config, **values))
        for what in ("train", "evals", *COUNTS, "seed"):
            if _holds_tracer(getattr(experiment, what)):
                raise TypeError(f"the experiment's {what} hangs on it")
        return _step(experiment, options)

    try:
        jax.eval_shape(whole, {name: jax.ShapeDtypeStruct((), jnp.float32) for name in names})
    except Exception as error:  # whatever a traced number meets in the file or below it
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(file.path)]
        where = f"line {lines[-1]} of {file.path}" if lines else str(file.path)
        reason = str(error).strip().splitlines()[0].rstrip(".:")[:160]
        knobs = " and ".join(names)
        return (
            f"{knobs} cannot be an input of one program, each of its values is compiled: at {where}, {reason}"
        )
    return None


def _step(experiment: Experiment, options: Options) -> Any:
    """A first state, a step from it and an evaluation of each kind, to be traced."""
    state = initial(experiment)
    after = one_step(experiment, options)(state, empty_batch(experiment.train, 2 * options.accumulate))
    params, extra = step.eval_variables(experiment.optimizer, state)
    measured = []
    for evaluation in experiment.evals.values():
        rows = empty_batch(as_evaluation(evaluation).data, 2)
        measured.append(
            step.make_evaluate(experiment.task, precision=as_dtype(options.precision))(params, extra, rows)
        )
    return after, measured


def one_step(experiment: Experiment, options: Options) -> Any:
    """The training step of an experiment; a state that is not finite stays as it was."""
    return make_step(experiment, accumulate=options.accumulate, precision=options.precision, on_nan="stop")


def _program(experiment: Experiment, options: Options) -> tuple[str, list[bytes]]:
    """The text and the constants of what is traced, without the seed."""
    closed = jax.make_jaxpr(lambda: _step(dataclasses.replace(experiment, seed=0), options))()
    return str(closed.jaxpr), [np.asarray(c).tobytes() for c in closed.consts if not _is_key(c)]


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


# What an object is made of


def same(a: Any, b: Any) -> bool:
    """Whether two pipelines certainly give the same: equal parts all the way down. In doubt they do not."""
    return _same(a, b, set())


def _same(a: Any, b: Any, met: set[tuple[int, int]]) -> bool:
    if a is b or (id(a), id(b)) in met:
        return True
    met.add((id(a), id(b)))
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.dtype != object and bool(np.array_equal(a, b))
    if isinstance(a, types.FunctionType) and a.__code__ is not b.__code__:
        return False
    mine, other = list(_parts(a)), list(_parts(b))
    if mine or other:
        return len(mine) == len(other) and all(
            i == j and _same(x, y, met) for (i, x), (j, y) in zip(mine, other, strict=True)
        )
    try:
        return bool(a == b)
    except Exception:
        return False


def _holds_tracer(thing: Any, met: set[int] | None = None) -> bool:
    met = set() if met is None else met
    if isinstance(thing, jax.core.Tracer):
        return True
    if id(thing) in met:
        return False
    met.add(id(thing))
    return any(_holds_tracer(part, met) for _, part in _parts(thing))


def _parts(thing: Any) -> Iterator[tuple[Any, Any]]:
    """(name, part) of what a thing holds; nothing for what holds nothing, or is not looked into."""
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
