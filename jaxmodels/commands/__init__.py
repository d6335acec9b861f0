"""The commands as Python functions, with the same names and arguments."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmodels import decoding, parallel
from jaxmodels.console import Console
from jaxmodels.decoding import Generation
from jaxmodels.experiment import Experiment
from jaxmodels.launch import cluster
from jaxmodels.options import DistributedOptions, FolderOptions, Options
from jaxmodels.parallel import processes
from jaxmodels.paths import by_path
from jaxmodels.runs import experiment_file, fingerprints, identity, step_digest
from jaxmodels.runs.checkpoint import Checkpoints
from jaxmodels.runs.files import inside, read_json
from jaxmodels.runs.folder import Folder, Identity, has_begun
from jaxmodels.runs.knob_types import check_type
from jaxmodels.runs.knobs import read_knobs
from jaxmodels.runs.learned import read_learned
from jaxmodels.runs.names import safe_name
from jaxmodels.runs.origin import check_run, is_weights
from jaxmodels.runs.png import write_png
from jaxmodels.state import abstract_state
from jaxmodels.step import State, cast_floats, eval_variables
from jaxmodels.task import Decoder, Predictor, Task
from jaxmodels.training import runner
from jaxmodels.training.check_batches import check_read


def train(
    experiment: str | Path | experiment_file.File | Experiment,
    *,
    console: Console | None = None,
    **arguments: Any,
) -> runner.Result:
    """Trains an experiment's file, or an Experiment, and goes on where its folder's run stopped.

    arguments: the file's knobs, and every option of `jaxmodels train` (see jaxmodels.options), by name. An
    Experiment has no knobs, and writes nothing where no folder is given; a folder's run goes on where the
    Experiment has the same arrays and data, and traces to the same step (see jaxmodels.runs.step_digest), as
    a file's does where its text is the same. With coordinator, process and processes it joins others, which
    must be before anything has used a device. console: console=jaxmodels.Console() shows progress, a bar on a
    terminal and a line at each log interval elsewhere; without it only warnings are printed.
    """
    options, place, joining, knobs = _sort(arguments)
    processes.join(cluster.given(joining.coordinator, joining.process, joining.processes))
    console = console or Console(quiet=True, muted=not processes.first())
    memory = None
    if isinstance(experiment, Experiment):
        if knobs:
            options_of = [
                name for kind in (Options, FolderOptions, DistributedOptions) for name in get_type_hints(kind)
            ]
            close = difflib.get_close_matches(next(iter(knobs)), options_of, n=1)
            raise ValueError(
                f"train: got {', '.join(knobs)} for an Experiment; expected options alone, as its knobs went into build. "
                + (f"Do write {close[0]}=" if close else "Give the file, or build the Experiment with them")
            )
        wanted, name, built = (
            Identity("", {"steps": experiment.steps, "seed": experiment.seed}, {}),
            "run",
            experiment,
        )
        path = Path(place.folder) if place.folder else None
    else:
        file = experiment_file.load(experiment)
        config = experiment_file.make_config(file, knobs)
        name = experiment_file.run_name(file, config)
        path = Path(place.folder or Path("runs") / name)
        memory = file.memory(config)
        if not place.fresh:
            memory.values.update(
                processes.on_first_process(lambda: read_learned(path) if has_begun(path) else {})
            )
        built = file.build(config)
        wanted = Identity(
            file.source, experiment_file.knobs_of(config), {"precision": options.precision}, file.beside
        )
    runner.check(built, options)  # before a folder is made
    if path is None:
        return runner.run(built, options, console=console)
    with console.busy("taking the data's fingerprint"):
        wanted = wanted._replace(data=fingerprints.fingerprints(built))
    if isinstance(experiment, Experiment):
        with console.busy("tracing a step, to know the run by"):
            wanted = wanted._replace(traced=step_digest.described(built, options.precision))
    folder = Folder(path, keep=options.keep or built.keep, warn=console.warn)
    try:
        folder.open(wanted, fresh=place.fresh, force=place.force)
        if memory is not None:
            memory.keep(folder.write_learned)
            experiment_file.name_classes(built, console.warn)
        processes.watch(path)
        return runner.run(built, options, folder=folder, console=console, name=name, knobs=dict(wanted.knobs))
    finally:
        folder.close()


def _sort(arguments: Mapping[str, Any]) -> tuple[Options, FolderOptions, DistributedOptions, dict[str, Any]]:
    """Arguments by what they are for: options, the place, other processes, and the rest, which are knobs."""

    def of(kind: type) -> dict[str, Any]:
        hints = get_type_hints(kind)
        found = {name: value for name, value in arguments.items() if name in hints}
        for name, value in found.items():
            check_type(name, value, hints[name])
        return found

    options, place, joining = of(Options), of(FolderOptions), of(DistributedOptions)
    knobs = {k: v for k, v in arguments.items() if k not in {**options, **place, **joining}}
    return Options(**options), FolderOptions(**place), DistributedOptions(**joining), knobs


def open_run(
    run: str | Path,
    *,
    step: int = -1,
    mesh: str = "",
    parts: Literal["all", "model"] = "all",
    evaluates: bool = False,
    warn: Any = print,
) -> tuple[Experiment, State, int]:
    """(experiment, state, step) of a run's folder, for reading: the checkpoint of that step, or the best, or the newest.

    The folder is code: its experiment.py is run. Open only runs of people whose code you would run yourself;
    warn(text) is called where the folder belongs to another user, or every user can write in it. Its files
    are compared with what they were when the run wrote them; the run may go on meanwhile.
    parts: "model" leaves the optimizer's state out, as (), where its parameters are not averages: it need not
        fit then.
    evaluates: whether the evaluations' data is to be compared with the run's, however long that takes.
    """
    run = check_run(run, warn)
    if not (run / "experiment.py").stat().st_size:
        raise ValueError(
            f"{run}: got a run of an Experiment object, which has no file; expected the run of a file, whose model can be "
            "built again. Build the Experiment in Python and call jaxmodels.train with this folder, which gives its state"
        )
    checkpoints = Checkpoints(run / "checkpoints", warn=warn, run=identity.verify(run))
    file, config = experiment_file.open_file(run)
    experiment = file.build(config)
    _compare_data(run, experiment, evaluates, warn)
    devices = parallel.make_mesh(mesh)
    like = abstract_state(experiment, devices)[0]._asdict()
    if parts == "model" and not hasattr(experiment.optimizer, "average"):
        del like["opt_state"], like["averaged"]
    got = checkpoints.read(like, None if step == -1 else step)
    if got is None:
        raise ValueError(
            f"{run} holds no complete checkpoint yet; train on: it saves at the experiment's interval and at the end"
        )
    return experiment, State(**{"opt_state": (), **got[1]}), got[0]


def _compare_data(run: Path, experiment: Experiment, evaluates: bool, warn: Any) -> None:
    """Warns where the data is not what the run was trained and evaluated with."""
    before = fingerprints.stored(read_json(run / "knobs.json").get("data"))
    now = fingerprints.fingerprints(experiment, fingerprints.worth_comparing(before, evaluates))
    for name in fingerprints.changed(before, now):
        warn(
            f"{run}: {fingerprints.title(name)} is not what this run was trained and evaluated with (fingerprint "
            f"{now[name]['fingerprint'][:8]} here, {before[name]['fingerprint'][:8]} in the run's folder). Numbers on it do "
            "not compare with the run's own; whatever was learned from the old data comes from the run's folder"
        )


def evaluate(
    run: str | Path,
    *,
    texts: Sequence[str | Path] = (),
    data: str | Path = "",
    weights: str | Path = "",
    knobs: Mapping[str, Any] | None = None,
    step: int = -1,
    mesh: str = "",
    precision: str = "run",
    console: Console | None = None,
) -> dict[str, float]:
    """The evaluations of a run's experiment on one of its checkpoints, by "name/metric".

    texts: files of text that are scored instead, each by its name; then a Hugging Face folder will do as well
    as a run. Every token but the first is scored once, with at least half of the model's length before it
    where there is as much.
    data: a path that is read by the experiment's other_data and evaluated instead, by its name; how it is
    prepared is the run's. weights: a path that is read by the experiment's `weights` and takes the place of
    the checkpoint; then an experiment's file, with knobs, will do as well as a run.
    """
    console = console or Console(quiet=True)
    is_file = Path(run).suffix == ".py"
    if not is_file and is_weights(run):
        if data or weights:
            raise ValueError(
                f"{run}: got a model from elsewhere, with --{'data' if data else 'weights'}; expected a run or an "
                "experiment's file, which says how they are read. Give that"
            )
        return _evaluate_release(run, texts, mesh, console)
    if is_file:
        if not weights:
            raise ValueError(
                f"{run}: got an experiment's file and no weights; expected a run's folder, or a file with --weights. Train "
                "it, or give weights"
            )
        file = experiment_file.load(run)
        experiment = file.build(experiment_file.make_config(file, knobs or {}))
    elif knobs:
        raise ValueError(
            f"{run}: got knobs {', '.join(knobs)} for a run; expected none, as a run has its own. Leave them out"
        )
    elif weights:
        run = check_run(run, console.warn)
        identity.verify(run)
        file, config = experiment_file.open_file(run)
        experiment = file.build(config)
    if weights:
        state = imported(experiment, weights, mesh)
        experiment = replace(experiment, optimizer=optax.identity())
    else:
        own = not (texts or data)
        experiment, state, n = open_run(
            run, step=step, mesh=mesh, parts="model", warn=console.warn, evaluates=own
        )
        console.say(f"checkpoint of step {n:,}", "dim")
    if data:
        if experiment.other_data is None:
            raise ValueError(
                f"{run}: got --data {data}, and its build() gives no other_data; expected Experiment(other_data=…), a "
                "function of a path that gives a pipeline. Add it to the experiment's file"
            )
        experiment = replace(experiment, evals={Path(data).name: experiment.other_data(str(data))})
    if texts:
        if experiment.decoder is None:
            raise ValueError(
                "this experiment's model reads no text: build() gave no decoder (see jaxmodels.tasks.language)"
            )
        experiment = replace(
            experiment, evals={**(experiment.evals if data else {}), **_by_name(experiment.decoder, texts)}
        )
    how = precision if precision != "run" else "float32" if is_file else _precision(run, "run")
    return runner.evaluate(experiment, state, Options(mesh=mesh, precision=how), console)  # type: ignore[arg-type]


def imported(experiment: Experiment, path: str | Path, mesh: str = "") -> State:
    """The state of an experiment whose parameters are those of weights from elsewhere, without an optimizer's."""
    if experiment.weights is None:
        raise ValueError(
            f"got --weights {path}, and build() gives no `weights`; expected Experiment(weights=…), such as lambda path: "
            "load_weights(model, path). Add it to the experiment's file"
        )
    found = experiment.weights(str(path))
    like, shardings = abstract_state(
        replace(experiment, optimizer=optax.identity()), parallel.make_mesh(mesh)
    )
    for what, want, have in (
        ("parameters", like.params, found.params),
        ("variables", like.extra, found.extra),
    ):
        wanted, got = shapes(want), shapes(have)
        if differs := [name for name in sorted({*wanted, *got}) if wanted.get(name) != got.get(name)]:
            name = differs[0]
            raise ValueError(
                f"{path}: got the {what} {name} {got.get(name, 'absent')}; expected {wanted.get(name, 'absent')}, as the "
                f"experiment's model has ({len(differs)} differ). Give the weights, or the knobs, that belong together"
            )
    state = State(
        jnp.zeros((), jnp.int32), jax.random.key(0), found.params, found.extra, (), jnp.zeros((), jnp.int32)
    )
    return jax.device_put(state, shardings._replace(opt_state=()))


def shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """The shape of each array by its path."""
    return {name: x.shape for name, x in by_path(tree).items()}


def _evaluate_release(
    run: str | Path, texts: Sequence[str | Path], mesh: str, console: Console
) -> dict[str, float]:
    """Texts scored by a model from elsewhere."""
    if processes.count() > 1:
        raise ValueError(
            f"{run} holds a model from elsewhere, and there are {processes.count()} processes; wanted one; start it once"
        )
    if not texts:
        raise ValueError(
            f"{run} holds a model and no experiment, so there is nothing to evaluate on; give --texts FILE"
        )
    made = _release(run)
    experiment = Experiment(
        task=made.task, optimizer=optax.identity(), train=_scored(made.decoder, texts[0]), steps=0
    )
    key = jax.random.key(0)
    state = State(jnp.zeros((), jnp.int32), key, made.params, {}, (), jnp.zeros((), jnp.int32))
    experiment = replace(experiment, evals=_by_name(made.decoder, texts))
    return runner.evaluate(experiment, state, Options(mesh=mesh), console)


def _release(folder: str | Path) -> Any:
    from jaxmodels.convert.text import read_text_model

    return read_text_model(folder)


def _by_name(decoder: Decoder, texts: Sequence[str | Path]) -> dict[str, Any]:
    names = [Path(text).name for text in texts]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two of the texts have the same name, under which their scores would stand: {', '.join(names)}"
        )
    return {name: _scored(decoder, text) for name, text in zip(names, texts, strict=True)}


def _scored(decoder: Decoder, text: str | Path) -> Any:
    """A file's text as windows that overlap by half."""
    from jaxmodels.data.pipeline import WindowPipeline

    if decoder.source:
        raise ValueError(
            "this model turns one text into another, and scores none by itself; wanted one that goes on with texts"
        )
    try:
        tokens = list(decoder.encode(Path(text).read_text("utf-8")))
    except UnicodeDecodeError as error:
        raise ValueError(f"{text} is no UTF-8 text ({error}); wanted text to score; convert it") from error
    begin = [] if decoder.begin is None else [decoder.begin]
    length = min(decoder.length, 1024, max(2, len(begin + tokens) - 1))
    return WindowPipeline(
        np.asarray(begin + tokens, np.int32), length=length, overlap=length // 2, batch=4 * jax.device_count()
    )


def predict(
    run: str | Path,
    files: Sequence[str | Path],
    *,
    out: str | Path | None = None,
    step: int = -1,
    mesh: str = "",
    precision: str = "run",
    warn: Any = print,
) -> list[dict[str, Any]]:
    """What a run's model, or one from elsewhere, says of files, such as pictures: for each a dict, with "file" and "picture"
    among the rest.

    "picture" is the path of a drawing of the prediction, in the folder `out`; by default `predictions` in the
    run's folder, or here where the model is from elsewhere.
    """
    if is_weights(run):
        from jaxmodels.convert.image import open_image_model
        from jaxmodels.data.drawing import captioned

        made = open_image_model(run, caption=captioned)
        params = cast_floats(made.params, None if precision in ("run", "float32") else jnp.dtype(precision))
        return predictions(
            made.predictor, params, made.extra, files, Path(out) if out else Path("predictions")
        )
    experiment, state, _ = open_run(run, step=step, mesh=mesh, parts="model", warn=warn)
    if experiment.predictor is None:
        raise ValueError(
            "this experiment's model reads no files: build() gave no predictor (see jaxmodels.task.Predictor)"
        )
    how = _precision(run, precision)
    params, extra = _of_model(experiment, state, how)
    folder = Path(out) if out else inside(run, "predictions")
    return predictions(experiment.predictor, params, extra, files, folder, experiment.task)


def predictions(
    predictor: Predictor,
    params: Any,
    extra: Any,
    files: Sequence[str | Path],
    folder: Path,
    task: Task | None = None,
) -> list[dict[str, Any]]:
    """See predict. task: what was trained, whose requirements the files' arrays are to meet."""
    # A file gives its drawing its own name; what is no file, such as a sentence, one made of all its text.
    names = [safe_name(Path(file).stem if _is_path(str(file)) else str(file)) for file in files]
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"two of the files are called {twice[0]}, under which their pictures would lie; give them one by one"
        )
    program = jax.jit(predictor.predict)
    said = []
    for file, name in zip(files, names, strict=True):
        batch = {key: np.asarray(x)[None] for key, x in predictor.read(file).items()}
        if task is not None:
            check_read(task, batch, str(file))
        got = jax.tree.map(lambda x: np.asarray(x)[0], program(params, extra, batch))
        folder.mkdir(parents=True, exist_ok=True)
        picture = write_png(folder / f"{name}.png", predictor.draw(file, got))
        said.append({"file": str(file), **predictor.report(got), "picture": str(picture)})
    return said


def _is_path(text: str) -> bool:
    return os.path.isfile(text) or re.fullmatch(r"\S+\.\w{1,5}", text) is not None


def generate(
    run: str | Path,
    *,
    prompt: str | Sequence[str] | None = None,
    step: int = -1,
    mesh: str = "",
    precision: str = "run",
    warn: Any = print,
    **how: Any,
) -> list[Generation]:
    """What a run's model, or one from elsewhere, writes after each prompt; see jaxmodels.options.Sampling.

    A text may be longer than the model's context: where that is full, sampling goes on from its newer half,
    and of a longer prompt the end is read. With beams that is a ValueError; a model with an encoder stops at
    its end. What a folder's generation_config.json asks for and `how` leaves open is said by `warn`, and not
    followed.
    """
    if is_weights(run):
        made = _release(run)
        if unmet := made.asked.unmet(how):
            warn(unmet)
        params = cast_floats(made.params, None if precision in ("run", "float32") else jnp.dtype(precision))
        return decoding.generate(made.decoder, params, {}, _prompts(made.decoder, prompt), **how)
    experiment, state, _ = open_run(run, step=step, mesh=mesh, parts="model", warn=warn)
    return sample(experiment, state, precision=_precision(run, precision), prompt=prompt, **how)


def _of_model(experiment: Experiment, state: State, precision: str) -> tuple[Any, Any]:
    """(params, extra) of the experiment's model in this state, which its predictor and its decoder know."""
    params, extra = eval_variables(experiment.optimizer, state)
    params = cast_floats(params, None if precision == "float32" else jnp.dtype(precision))
    params, extra = experiment.task.unwrap(params, extra)
    return jax.device_put(params), extra


def _precision(run: str | Path, asked: str) -> str:
    return read_knobs(run).options["precision"] if asked == "run" else asked


def _prompts(decoder: Decoder, prompt: str | Sequence[str] | None) -> list[str]:
    if prompt is None or (not isinstance(prompt, str) and not prompt):
        return [decoder.prompt]
    return [prompt] if isinstance(prompt, str) else list(prompt)


def sample(
    experiment: Experiment,
    state: State,
    *,
    precision: str = "float32",
    prompt: str | Sequence[str] | None = None,
    **how: Any,
) -> list[Generation]:
    """What an experiment's model writes in this state after each prompt, by default the experiment's own."""
    if experiment.decoder is None:
        raise ValueError(
            "this experiment's model does not generate: build() gave no decoder (see jaxmodels.tasks.language)"
        )
    params, extra = _of_model(experiment, state, precision)
    prompts = _prompts(experiment.decoder, prompt)
    return decoding.generate(experiment.decoder, params, extra, prompts, **how)
