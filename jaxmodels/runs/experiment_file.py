"""An experiment's file: read, checked, and turned into knobs and an Experiment.

The file is Python and is run: give a file that you would run yourself.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, get_type_hints

from jaxmodels import __version__
from jaxmodels.experiment import Evaluation, Experiment
from jaxmodels.runs import files, names
from jaxmodels.runs import knob_types as typed
from jaxmodels.runs.check_experiment import check_parts
from jaxmodels.runs.code import Code, shown
from jaxmodels.runs.knobs import read_knobs
from jaxmodels.runs.learned import Memory, learned, read_learned, remembering


class File(NamedTuple):
    """An experiment's file: where, its text, its dataclass of knobs, and build(config)."""

    path: Path
    source: str
    beside: Mapping[str, str]  # texts of the modules beside it that it imports, by path below its folder
    module: ModuleType
    config: type
    memories: dict[str, Memory]  # what each setting of the knobs has learned from its data

    def build(self, config: Any, *, like: Any = None) -> Experiment:
        """The experiment of these knobs. like: other knobs, whose memory has what it learns from data."""
        with self.memory(config if like is None else like).building():
            try:
                experiment = self.module.build(config)
            except ModuleNotFoundError as error:
                _check_imported(self.path, self.module.__spec__.loader.code, error)  # type: ignore[union-attr]
                raise
            if not isinstance(experiment, Experiment):
                raise ValueError(
                    f"{self.path}: got {type(experiment).__name__} from build(config); expected a "
                    "jaxmodels.Experiment. Return one"
                )
            check_parts(experiment)
            return _remembering(experiment)

    def memory(self, config: Any) -> Memory:
        """What the experiment of these knobs has learned from its data."""
        return self.memories.setdefault(repr(config), Memory())


def open_file(run: str | Path) -> tuple[File, Any]:
    """(the file, the knobs) of a run's folder, with what the run has learned from its data."""
    run = Path(run)
    file = load(run / "experiment.py")
    config = make_config(file, read_knobs(run).knobs)
    file.memory(config).values.update(read_learned(run))
    return file, config


def _remembering(experiment: Experiment) -> Experiment:
    """The experiment, for whose functions on the host learned() means its run whenever they are called."""

    def bound(part: Any, *functions: str) -> Any:
        found = {name: getattr(part, name) for name in functions} if part is not None else {}
        return part and part._replace(**{name: remembering(f) for name, f in found.items() if f is not None})

    display = experiment.display
    if display is not None and display.classes is not None:
        display = display._replace(classes=partial(learned, "names of the classes", _listed(display.classes)))
    return dataclasses.replace(
        experiment,
        task=bound(experiment.task, "finish"),
        evals={
            name: bound(one, "score", "pictures") if isinstance(one, Evaluation) else one
            for name, one in experiment.evals.items()
        },
        decoder=bound(experiment.decoder, "encode", "decode"),
        predictor=bound(experiment.predictor, "read", "report", "draw", "settings"),
        display=bound(display, "input", "classes"),
        baselines=remembering(experiment.baselines),
        other_data=experiment.other_data and remembering(experiment.other_data),
        weights=experiment.weights and remembering(experiment.weights),
    )


def name_classes(experiment: Experiment, warn: Callable[[str], object]) -> None:
    """Learns the names of the classes now, so that a report made later does not ask the data for them."""
    if experiment.display is not None and experiment.display.classes is not None:
        try:
            experiment.display.classes()
        except Exception as error:  # the experiment's own code; a run does without these names
            warn(f"the display's classes() failed ({error}): reports will ask it again")


def _listed(classes: Callable[[], Sequence[Any]]) -> Callable[[], list[str]]:
    return lambda: [str(name) for name in classes()]


def load(path: str | Path | File) -> File:
    """Runs the file once, under its own name, and checks what it must offer; a File was run already."""
    if isinstance(path, File):
        return path
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path}: got a folder; expected an experiment's file, {_near(path / 'x.py')}")
    if not path.is_file():
        raise ValueError(f"{path}: got no such file; expected an experiment's file, {_near(path)}")
    if path.suffix != ".py":
        raise ValueError(
            f"{path}: got no Python file; expected one with a dataclass Config and build(config). Give an "
            "experiment's file"
        )
    code = Code(path)
    try:
        module = code.run()
    except ImportError as error:
        _check_version(path, error)
        if not isinstance(error, ModuleNotFoundError):
            raise
        name = shown(error.name or "")
        package = name.partition(".")[0]
        if name != error.name:
            raise ValueError(
                f"{path}: got an import of {name}; expected a module of that name beside the file. Check "
                "the name, or write the module"
            ) from error
        if not package or importlib.util.find_spec(package) is not None:  # a mistake in the name of a part
            raise
        _check_imported(path, code, error)
        raise ValueError(
            f"{path}: got an import of {package}; expected an installed package, or a module beside the "
            f"experiment's file. Install it, or put {package}.py there"
        ) from error
    if not callable(getattr(module, "build", None)):
        raise ValueError(
            f"{path}: got no function build; expected build(config) -> jaxmodels.Experiment. Write it"
        )
    config = getattr(module, "Config", None)
    if not (isinstance(config, type) and dataclasses.is_dataclass(config)):
        raise ValueError(
            f"{path}: got no dataclass Config; expected one with the experiment's knobs and their defaults. "
            "Write it"
        )
    missing = [
        f.name
        for f in dataclasses.fields(config)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ValueError(
            f"{path}: got knobs without a default: {', '.join(missing)}; expected a default for each. "
            "Give it in Config"
        )
    typed.check_types(path, config)
    return File(path, code.source, code.beside(), module, config, {})


def _check_version(path: Path, error: ImportError) -> None:
    """Raises in other words where a run's folder is of a version of jaxmodels that had other modules."""
    wrote = None
    with contextlib.suppress(OSError, ValueError, AttributeError):
        wrote = files.read_json(path.parent / "environment.json").get("versions", {}).get("jaxmodels")
    is_version = isinstance(wrote, str) and re.fullmatch(r"[\w.+-]+", wrote) is not None
    if (error.name or "").partition(".")[0] == "jaxmodels" and is_version and wrote != __version__:
        raise ValueError(
            f"{path}: got an import that jaxmodels {__version__} does not have ({shown(error.msg)}); "
            "expected parts of this version. Change it, or install the one that wrote this folder: pip "
            f"install jaxmodels=={wrote}"
        ) from error


def _check_imported(path: Path, code: Code, error: ModuleNotFoundError) -> None:
    """Raises in other words where the module that was not found lies beside the file."""
    package = (error.name or "").partition(".")[0]
    if package and package == shown(package) and code.find((package,)) is not None:
        raise ValueError(
            f"{path}: got an import of {error.name} by importlib; expected an import statement, by which "
            f"modules beside the file are found, and copied into a run's folder. Write import {error.name}"
        ) from error


def _near(path: Path) -> str:
    folder = path.parent if path.parent.is_dir() else Path("experiments")
    files = sorted(str(p) for p in folder.glob("*.py")) if folder.is_dir() else []
    files = files or sorted(str(p) for p in Path("experiments").glob("*.py"))
    close = difflib.get_close_matches(str(path), files, n=3, cutoff=0.4) or files[:3]
    return f"nearest: {', '.join(close)}" if close else f"{folder.resolve()} holds no Python file"


def make_config(file: File, knobs: Mapping[str, Any]) -> Any:
    """The dataclass with these knobs; the values must be of the declared types."""
    hints = get_type_hints(file.config)
    names = [f.name for f in dataclasses.fields(file.config)]
    for name, value in knobs.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Choose one of them"
            raise ValueError(f"{file.path}: got no knob {name!r}; expected one of {', '.join(names)}. {hint}")
        typed.check_type(f"knob {name} of {file.path}", value, hints[name])
        if isinstance(value, float) and value != value:
            raise ValueError(
                f"knob {name} of {file.path}: got nan; expected a number. Give one, or leave the knob out"
            )
    return file.config(**{name: typed.restored(value, hints[name]) for name, value in knobs.items()})


def knobs_of(config: Any) -> dict[str, Any]:
    """All knobs by name, as JSON has them; see jaxmodels.runs.knob_types."""
    return typed.plain(config)


def run_name(file: File, config: Any) -> str:
    """The file's name, and the knobs that are not at their defaults: gpt_python-lr=0.001; see runs.names."""
    default = knobs_of(file.config())
    changed = {k: v for k, v in knobs_of(config).items() if v != default[k]}
    return names.of_knobs(changed, prefix=[file.path.stem])
