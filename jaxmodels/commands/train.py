"""jaxmodels train: an experiment is trained, or goes on where its run stopped."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

from jaxmodels.console import Console
from jaxmodels.options import DistributedOptions, FolderOptions, Options

if TYPE_CHECKING:
    from jaxmodels.experiment import Experiment
    from jaxmodels.runs.experiment_file import File
    from jaxmodels.training.runner import Result


def train(
    experiment: str | Path | File | Experiment, *, console: Console | None = None, **arguments: Any
) -> Result:
    """Trains an experiment's file, or an Experiment, and goes on where its folder's run stopped.

    arguments: the file's knobs, and every option of `jaxmodels train` (see jaxmodels.options), by name. An
        Experiment has no knobs. With coordinator, process and processes this process joins others, which must
        happen before anything has used a device.
    console: jaxmodels.Console() shows progress, as a bar on a terminal and as a line at each log interval
        elsewhere; by default only warnings are printed.

    An Experiment writes nothing unless a folder is given. A folder's run goes on where the Experiment has the
    same arrays and data and traces to the same step (see jaxmodels.runs.step_digest); a file's run goes on
    where the file's text is the same.
    """
    from jaxmodels.experiment import Experiment
    from jaxmodels.launch import cluster
    from jaxmodels.parallel import processes
    from jaxmodels.runs import experiment_file, fingerprints, step_digest
    from jaxmodels.runs.definition import RunDefinition
    from jaxmodels.runs.folder import Folder, has_begun
    from jaxmodels.runs.learned import read_learned
    from jaxmodels.training import runner
    from jaxmodels.training.check import check

    options, folder_options, distributed, knobs = _sort(arguments)
    processes.join(cluster.given(distributed.coordinator, distributed.process, distributed.processes))
    console = console or Console(quiet=True, muted=not processes.first())
    memory = None
    if isinstance(experiment, Experiment):
        if knobs:
            raise ValueError(_unknown_options(knobs))
        built, name = experiment, "run"
        path = Path(folder_options.folder) if folder_options.folder else None
        definition = RunDefinition("", {"steps": experiment.steps, "seed": experiment.seed}, {})
    else:
        file = experiment_file.load(experiment)
        config = experiment_file.make_config(file, knobs)
        name = experiment_file.run_name(file, config)
        path = Path(folder_options.folder or Path("runs") / name)
        memory = file.memory(config)
        if not folder_options.fresh:

            def learned(folder: Path = path) -> dict[str, Any]:
                return read_learned(folder) if has_begun(folder) else {}

            memory.values.update(processes.on_first_process(learned))
        built = file.build(config)
        knobs = experiment_file.knobs_of(config)
        definition = RunDefinition(file.source, knobs, {"precision": options.precision}, file.beside)
    check(built, options)  # before a folder is made
    if path is None:
        return runner.run(built, options, console=console)
    with console.busy("taking the data's fingerprint"):
        definition = definition._replace(data=fingerprints.fingerprints(built))
    if isinstance(experiment, Experiment):
        with console.busy("tracing a step, by which the run is known"):
            definition = definition._replace(traced=step_digest.described(built, options.precision))
    folder = Folder(path, keep=options.keep or built.keep, warn=console.warn)
    try:
        folder.open(definition, fresh=folder_options.fresh, force=folder_options.force)
        if memory is not None:
            memory.keep(folder.write_learned)
            experiment_file.name_classes(built, console.warn)
        processes.watch(path)
        return runner.run(
            built, options, folder=folder, console=console, name=name, knobs=dict(definition.knobs)
        )
    finally:
        folder.close()


def _sort(arguments: Mapping[str, Any]) -> tuple[Options, FolderOptions, DistributedOptions, dict[str, Any]]:
    """The arguments of train by the dataclass that they belong to; the rest are knobs."""
    from jaxmodels.runs.knob_types import check_type

    def of(kind: type) -> dict[str, Any]:
        hints = get_type_hints(kind)
        values = {name: value for name, value in arguments.items() if name in hints}
        for name, value in values.items():
            check_type(name, value, hints[name])
        return values

    options, folder_options, distributed = of(Options), of(FolderOptions), of(DistributedOptions)
    knobs = {k: v for k, v in arguments.items() if k not in {**options, **folder_options, **distributed}}
    return Options(**options), FolderOptions(**folder_options), DistributedOptions(**distributed), knobs


def _unknown_options(knobs: Mapping[str, Any]) -> str:
    """What is wrong with knobs for an Experiment, most often a misspelt option."""
    names = [name for kind in (Options, FolderOptions, DistributedOptions) for name in get_type_hints(kind)]
    close = difflib.get_close_matches(next(iter(knobs)), names, n=1)
    advice = f"Write {close[0]}=" if close else "Give the file, or build the Experiment with them"
    return (
        f"train: got {', '.join(knobs)} for an Experiment; expected options alone, as its knobs went into "
        f"build(). {advice}"
    )
