"""jaxmodels evaluate: a checkpoint, or other weights, on the experiment's data, on other data or on texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodels.console import Console
from jaxmodels.options import CheckpointOptions, Options

if TYPE_CHECKING:
    from jaxmodels.experiment import Experiment
    from jaxmodels.interfaces import Decoder
    from jaxmodels.step import State


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is evaluated."""

    texts: tuple[str, ...] = ()
    """Files of text, each scored by its loss and perplexity, in place of the experiment's data."""
    data: str = ""
    """A path that the experiment's other_data reads, such as a folder; prepared like its own data."""


@dataclass(frozen=True, kw_only=True)
class WeightsOptions:
    """Weights that are not a run's."""

    weights: str = ""
    """A file or folder of weights, which the experiment's `weights` reads, in place of a checkpoint."""


def evaluate(
    run: str | Path,
    *,
    texts: Sequence[str | Path] = EvaluateOptions.texts,
    data: str | Path = EvaluateOptions.data,
    weights: str | Path = WeightsOptions.weights,
    knobs: Mapping[str, Any] | None = None,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    console: Console | None = None,
) -> dict[str, float]:
    """The metrics of a run's experiment on one of its checkpoints, by "evaluation/metric".

    run: a run's folder; with texts also a Hugging Face folder; with weights also an experiment's file, which
        takes knobs.
    texts: files of text that are scored instead, each under its name. Every token but the first is scored
        once, after at least half of the model's length where the text has as much before it.
    data: a path that the experiment's other_data reads, evaluated instead, under its name. It is prepared
        with what the run learned from its own data.
    weights: a path that the experiment's `weights` reads; these parameters take the checkpoint's place.
    """
    import optax

    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.open_run import open_run, precision_of
    from jaxmodels.runs.origin import is_weights
    from jaxmodels.training import runner

    console = console or Console(quiet=True)
    is_file = Path(run).suffix == ".py"
    if not is_file and is_weights(run):
        if data or weights:
            raise ValueError(
                f"{run}: got a folder of weights, with --{'data' if data else 'weights'}; expected a run or "
                "an experiment's file, which says how they are read. Give that"
            )
        return _evaluate_weights_on_texts(run, texts, mesh, console)
    if is_file and not weights:
        raise ValueError(
            f"{run}: got an experiment's file without weights; expected a run's folder, or a file with "
            "--weights. Train it, or give weights"
        )
    if knobs and not is_file:
        raise ValueError(
            f"{run}: got knobs {', '.join(knobs)} for a run; expected none, as a run has its own. Leave them "
            "out"
        )
    if weights:
        if is_file:
            file = experiment_file.load(run)
            config = experiment_file.make_config(file, knobs or {})
        else:
            file, config = _verified_file(run, console)
        experiment = file.build(config)
        state = state_of_weights(experiment, weights, mesh)
        experiment = replace(experiment, optimizer=optax.identity())
    else:
        own_data = not (texts or data)
        experiment, state, step = open_run(
            run, step=step, mesh=mesh, parts="model", warn=console.warn, evaluates=own_data
        )
        console.say(f"checkpoint of step {step:,}", "dim")
    if data:
        if experiment.other_data is None:
            raise ValueError(
                f"{run}: got --data {data}, and its build() gives no other_data; expected "
                "Experiment(other_data=…), a function of a path that gives a pipeline. Add it to the "
                "experiment's file"
            )
        experiment = replace(
            experiment, evals={Path(data).name: experiment.other_data(str(data))}, target=None
        )
    if texts:
        if experiment.decoder is None:
            raise ValueError(
                f"{run}: got --texts, and its build() gives no decoder; expected a model that reads text. "
                "See jaxmodels.tasks.language"
            )
        scored = pipelines_of_texts(experiment.decoder, texts)
        experiment = replace(experiment, evals={**(experiment.evals if data else {}), **scored}, target=None)
    if is_file and precision == "run":
        precision = Options.precision
    options = Options(mesh=mesh, precision=precision_of(run, precision))  # type: ignore[arg-type]
    return runner.evaluate(experiment, state, options, console)


def _verified_file(run: str | Path, console: Console) -> tuple[Any, Any]:
    """(file, config) of a run's experiment, after the folder's files were compared with their digests."""
    from jaxmodels.runs import experiment_file, identity
    from jaxmodels.runs.origin import check_run

    folder = check_run(run, console.warn)
    identity.verify(folder)
    return experiment_file.open_file(folder)


def state_of_weights(experiment: Experiment, path: str | Path, mesh: str = "") -> State:
    """The state of an experiment whose parameters are read from a path; it has no optimizer's state."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxmodels.parallel.mesh import make_mesh
    from jaxmodels.state import abstract_state
    from jaxmodels.step import State

    if experiment.weights is None:
        raise ValueError(
            f"got --weights {path}, and build() gives no `weights`; expected Experiment(weights=…), such as "
            "lambda path: load_weights(model, path). Add it to the experiment's file"
        )
    weights = experiment.weights(str(path))
    without_optimizer = replace(experiment, optimizer=optax.identity())
    like, shardings = abstract_state(without_optimizer, make_mesh(mesh))
    _check_shapes(path, "parameters", like.params, weights.params)
    _check_shapes(path, "variables", like.extra, weights.extra)
    zero = jnp.zeros((), jnp.int32)
    state = State(zero, jax.random.key(0), weights.params, weights.extra, (), jnp.zeros((), jnp.int32))
    return jax.device_put(state, shardings._replace(opt_state=()))


def _check_shapes(path: str | Path, kind: str, expected_tree: Any, tree: Any) -> None:
    """ValueError where weights and the experiment's model differ in an array's name or shape."""
    expected, got = _shapes(expected_tree), _shapes(tree)
    differing = [name for name in sorted({*expected, *got}) if expected.get(name) != got.get(name)]
    if differing:
        name = differing[0]
        raise ValueError(
            f"{path}: got the {kind} {name} {got.get(name, 'absent')}; expected "
            f"{expected.get(name, 'absent')}, as the experiment's model has ({len(differing)} differ). Give "
            "the weights, or the knobs, that belong together"
        )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array by its path."""
    from jaxmodels.paths import by_path

    return {name: x.shape for name, x in by_path(tree).items()}


def _evaluate_weights_on_texts(
    folder: str | Path, texts: Sequence[str | Path], mesh: str, console: Console
) -> dict[str, float]:
    """The scores that a folder of weights gives texts; it has no experiment."""
    import jax
    import jax.numpy as jnp
    import optax

    from jaxmodels.convert.text import read_text_model
    from jaxmodels.experiment import Experiment
    from jaxmodels.parallel import processes
    from jaxmodels.step import State
    from jaxmodels.training import runner

    if processes.count() > 1:
        raise ValueError(
            f"{folder}: got a folder of weights and {processes.count()} processes; expected one process. "
            "Start it once"
        )
    if not texts:
        raise ValueError(
            f"{folder}: got a folder of weights, which has no data; expected texts to score. Give --texts "
            "FILE"
        )
    model = read_text_model(folder)
    scored = pipelines_of_texts(model.decoder, texts)
    first = next(iter(scored.values()))
    experiment = Experiment(task=model.task, optimizer=optax.identity(), train=first, evals=scored, steps=0)
    zero = jnp.zeros((), jnp.int32)
    state = State(zero, jax.random.key(0), model.params, {}, (), jnp.zeros((), jnp.int32))
    return runner.evaluate(experiment, state, Options(mesh=mesh), console)


def pipelines_of_texts(decoder: Decoder, texts: Sequence[str | Path]) -> dict[str, Any]:
    """A pipeline for each text, by the file's name."""
    names = [Path(text).name for text in texts]
    if len(set(names)) < len(names):
        raise ValueError(
            f"evaluate: got texts with the same name, {', '.join(names)}; expected different ones, as their "
            "scores are named after them. Rename one"
        )
    return {name: _overlapping_windows(decoder, text) for name, text in zip(names, texts, strict=True)}


def _overlapping_windows(decoder: Decoder, text: str | Path) -> Any:
    """A file's tokens as windows that overlap by half."""
    import jax
    import numpy as np

    from jaxmodels.data.pipeline import WindowPipeline

    if decoder.source:
        raise ValueError(
            f"{text}: got a text for a model that maps one text to another; expected a model that continues "
            "texts. Give --data, which the experiment reads"
        )
    try:
        tokens = list(decoder.encode(Path(text).read_text("utf-8")))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{text}: got bytes that are not UTF-8 ({error}); expected text. Convert it"
        ) from error
    begin = [] if decoder.begin is None else [decoder.begin]
    length = min(decoder.length, 1024, max(2, len(begin + tokens) - 1))
    return WindowPipeline(
        np.asarray(begin + tokens, np.int32), length=length, overlap=length // 2, batch=4 * jax.device_count()
    )
