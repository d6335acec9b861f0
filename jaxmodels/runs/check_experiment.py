"""Whether an Experiment's fields hold what they must, said in one message in place of a traceback."""

from __future__ import annotations

import inspect
import math
import numbers
from collections.abc import Mapping
from typing import Any

from jaxmodels.experiment import Evaluation, Experiment
from jaxmodels.interfaces import Target
from jaxmodels.pipeline import Pipeline
from jaxmodels.task import Task

INTEGERS = ("steps", "eval_every", "checkpoint_every", "log_every", "keep")


def check_parts(experiment: Experiment) -> None:
    """Raises ValueError where a field holds a value of the wrong kind; reads no data."""
    task, optimizer, best = experiment.task, experiment.optimizer, experiment.best
    if not isinstance(task, Task):
        raise ValueError(
            f"the experiment's task: got {kind(task)}; expected a jaxmodels.Task. Wrap the model, as in "
            "task=jaxmodels.tasks.classify.classify(model)."
        )
    if isinstance(optimizer, type) or not all(
        callable(getattr(optimizer, name, None)) for name in ("init", "update")
    ):
        raise ValueError(
            f"the experiment's optimizer: got {kind(optimizer)}; expected one of optax. Write "
            "optimizer=jaxmodels.optim.adam(1e-3), or give any optax.GradientTransformation."
        )
    check_pipeline(experiment.train, "train")
    if not isinstance(experiment.evals, Mapping):
        raise ValueError(
            f"the experiment's evals: got {kind(experiment.evals)}; expected a dict of names. Write "
            "evals={'test': pipeline}."
        )
    for name, evaluation in experiment.evals.items():
        if not isinstance(name, str) or not name or "/" in name:
            raise ValueError(
                f"the experiment's evals: got the name {name!r}; expected text without /. Write 'test'."
            )
        check_pipeline(
            evaluation.data if isinstance(evaluation, Evaluation) else evaluation, f"evals[{name!r}]"
        )
    if experiment.target is not None:
        _check_target(experiment.target, experiment.evals)
    for name in INTEGERS:
        value = getattr(experiment, name)
        absent = value is None and name in ("eval_every", "checkpoint_every")
        if not absent and (not isinstance(value, numbers.Integral) or isinstance(value, bool)):
            raise ValueError(
                f"the experiment's {name}: got {value!r} ({type(value).__name__}); expected a whole number. "
                "Round it, as by int(x), or divide by // in place of /."
            )
    if best is not None and not (
        isinstance(best, tuple) and len(best) == 2 and isinstance(best[0], str) and callable(best[1])
    ):
        raise ValueError(
            f"the experiment's best: got {best!r}; expected a metric and max or min. Write "
            "best=('test/accuracy', max)."
        )


def _check_target(target: Any, evals: Mapping[str, Any]) -> None:
    def refuse(got: str, expected: str) -> None:
        raise ValueError(
            f"the experiment's target: got {got}; expected {expected}. Write "
            "target=Target('accuracy', 0.9, 'higher', split='test')."
        )

    if not isinstance(target, Target):
        refuse(kind(target), "a jaxmodels.Target")
    if target.direction not in ("higher", "lower"):
        refuse(f"the direction {target.direction!r}", "'higher' or 'lower', which is better")
    number = isinstance(target.value, numbers.Real) and not isinstance(target.value, bool)
    if not number or not math.isfinite(target.value):
        refuse(f"the value {target.value!r}", "a finite number")
    if not target.metric or "/" in target.metric:
        refuse(f"the metric {target.metric!r}", "a name without the split")
    if target.split not in evals:
        refuse(f"the split {target.split!r}", f"one of evals ({', '.join(evals) or 'none'})")


def check_pipeline(data: Any, name: str) -> None:
    """Raises ValueError where this is no pipeline, or its batch size is no integer."""
    if not isinstance(data, Pipeline):
        raise ValueError(
            f"the experiment's {name}: got {kind(data)}; expected a pipeline. Put arrays into "
            "jaxmodels.data.pipeline.ArrayPipeline({'image': x, 'label': y}, batch=32), or subclass "
            "jaxmodels.pipeline.Pipeline."
        )
    for part in ("batch", "steps", "spec"):
        if inspect.getattr_static(data, part, None) is None and not _has(data, part):
            raise ValueError(
                f"the experiment's {name}: got {kind(data)} without {part}; expected batch, steps and spec. "
                f"Set {part}; see jaxmodels.pipeline.Pipeline."
            )
    if not isinstance(data.batch, numbers.Integral) or isinstance(data.batch, bool):
        raise ValueError(
            f"the experiment's {name}: got a batch of {data.batch!r} ({type(data.batch).__name__}); "
            "expected a whole number. Round it, as by int(x)."
        )


def _has(data: Any, part: str) -> bool:
    """Whether __getattr__ provides it. Properties are not called, as they may read data."""
    return inspect.getattr_static(type(data), "__getattr__", None) is not None and hasattr(data, part)


def kind(x: Any) -> str:
    """What an object is, for a message."""
    if x is None:
        return "None"
    if isinstance(x, type):
        return f"the class {x.__name__} itself"
    if inspect.isfunction(x) or inspect.ismethod(x):
        return f"the function {x.__name__} itself"
    module = type(x).__module__.partition(".")[0]
    return f"a {type(x).__name__}" + (
        f" of {module}" if module not in ("builtins", "jaxmodels", "__main__") else ""
    )
