"""jaxmodels predict: a model's answers for images, texts, sounds and rows of tables, also as drawings."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jaxmodels.options import CheckpointOptions

if TYPE_CHECKING:
    from jaxmodels.inference.forecasts import Forecast
    from jaxmodels.inference.inputs import Given
    from jaxmodels.inference.model import Answer, Model

ROW = ("question", "context")  # options that together are a row


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Inputs that are no files, and where answers go."""

    text: tuple[str, ...] = ()
    """One or more texts, for a model of texts; may be repeated."""
    lines: bool = False
    """Each line of a text file is a text."""
    column: str = ""
    """The column of a table that holds the texts; by default text, sentence, or the only one."""
    question: str = ""
    """A question, for a model that finds answers in --context."""
    context: str = ""
    """The text in which the answer is looked for."""
    table: str = ""
    """A table of series with its times, for a model that forecasts them."""
    horizon: int = 0
    """Steps that are forecast after --table; 0 is as many as the model was trained for."""
    out: str = ""
    """A table of the inputs with the answers as further columns: a path in .csv, .tsv, .jsonl or .parquet;
    or a folder for drawings, by default `predictions` in the run's folder.
    With --table the forecast, beside which its drawing goes."""


class Predicted(NamedTuple):
    """An input with its answer."""

    given: Given
    answer: Answer
    picture: str = ""

    @property
    def report(self) -> dict[str, Any]:
        """Where the input comes from, with what the model says of it or "error": as JSON."""
        from jaxmodels.inference.answers_table import added

        said: dict[str, Any] = {"error": self.answer.error} if self.answer.error else {**self.answer.values}
        if self.picture:
            said["picture"] = self.picture
        return {**self.given.place, **added(self.given.place, said)}

    @property
    def fault(self) -> str:
        """Where the input comes from and why it has no answer; "" where it has one."""
        error, name = self.answer.error, self.given.name
        return error if not error or name in error else f"{name}: {error}"


def predict(
    run: str | Path,
    files: Sequence[str | Path] = (),
    *,
    text: str | Sequence[str] = PredictOptions.text,
    lines: bool = PredictOptions.lines,
    column: str = PredictOptions.column,
    question: str = PredictOptions.question,
    context: str = PredictOptions.context,
    rows: Sequence[Mapping[str, Any]] = (),
    table: str | Path = PredictOptions.table,
    horizon: int = PredictOptions.horizon,
    out: str | Path | None = PredictOptions.out,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    warn: Any = print,
) -> list[dict[str, Any]]:
    """A model's answer for each input: a dict that says where the input comes from, with the model's values.

    run: also a folder of weights. files: images, sounds, texts or tables, as the model reads them, or folders
        of them. rows: of a table, as dicts. out: see PredictOptions.
    table, horizon: of series that are forecast; the one answer is then {"columns", "path", "picture"}.
    An input that cannot be used has "error" in place of values; "picture" is the path of a drawing.
    """
    model = open_model(run, step=step, mesh=mesh, precision=precision, warn=warn)
    if table or horizon:
        return [forecast(model, table, horizon=horizon, out=out)._asdict()]
    texts = (text,) if isinstance(text, str) else tuple(text)
    rows = [*rows, *row_of(question, context)]
    found = predictions(model, files, out=out, texts=texts, lines=lines, column=column, rows=rows)
    return [one.report for one in found]


def open_model(run: str | Path, **where: Any) -> Model:
    """See jaxmodels.load."""
    from jaxmodels.inference.load import load

    return load(run, **where)


def forecast(model: Model, table: str | Path, *, horizon: int = 0, out: str | Path | None = "") -> Forecast:
    """The steps that follow a table of series; see inference.forecasts."""
    from jaxmodels.inference.forecasts import forecast

    if not table:
        raise ValueError("predict: got --horizon without --table; expected both. Give --table FILE")
    return forecast(model, table, horizon=horizon, out=out or "")


def goes_to_table(out: str | Path | None) -> bool:
    """Whether answers are written into a table, beside their inputs; else `out` is a folder for drawings."""
    from jaxmodels.inference.answers_table import table_path

    return bool(out) and table_path(str(out)) is not None


def row_of(question: str, context: str) -> list[dict[str, str]]:
    """The row that --question and --context are."""
    if bool(question) != bool(context):
        given, missing = ROW if question else ROW[::-1]
        raise ValueError(f"predict: got --{given} without --{missing}; expected both. Give --{missing}")
    return [dict(zip(ROW, (question, context), strict=True))] if question else []


def predictions(
    model: Model,
    files: Sequence[str | Path] = (),
    *,
    out: str | Path | None = "",
    texts: Sequence[str] = (),
    lines: bool = False,
    column: str = "",
    rows: Sequence[Mapping[str, Any]] = (),
) -> Iterator[Predicted]:
    """See predict: one after another, as they are asked for; a table is written at the end."""
    from jaxmodels.inference.answers_table import table_path, writing
    from jaxmodels.inference.inputs import files_of, inputs_of

    predictor = model.require_predictor()
    table = table_path(out) if out else None
    if out and not table and predictor.draw is None:
        raise ValueError(
            f"predict: got the folder {out} for drawings; expected a table for this model, which draws "
            "nothing. Give a path in .csv, .tsv, .jsonl or .parquet"
        )
    found = files_of(predictor, files)
    given = inputs_of(predictor, found, texts=texts, rows=rows, by_line=lines, column=column)
    drawings = _Drawings(model, Path(out) if out else None, found)
    return _predictions(model, given, drawings, writing(table) if table else nullcontext())


def _predictions(
    model: Model, given: Iterator[Given], drawings: _Drawings, table: Any
) -> Iterator[Predicted]:
    from jaxmodels.runs.png import write_png

    predictor = model.require_predictor()
    given, inputs = itertools.tee(given)
    with table as spool:
        for one, answer in zip(given, model.stream(each.input for each in inputs), strict=True):
            picture = ""
            if spool is not None:
                spool.add(one.row, {**answer.values, "error": answer.error})
            elif predictor.draw is not None and not answer.error:
                picture = str(write_png(drawings.path(one), predictor.draw(one.input, answer.arrays)))
            yield Predicted(one, answer, picture)


class _Drawings:
    """Where drawings go: a folder, with a name for each input that is its own."""

    def __init__(self, model: Model, folder: Path | None, files: Sequence[Path]):
        from jaxmodels.runs.files import inside

        if folder is None:
            folder = Path("predictions") if model.step is None else inside(model.source, "predictions")
        self._folder = folder
        stems = [file.stem for file in dict.fromkeys(files)]
        self._repeated = {stem for stem, count in Counter(stems).items() if count > 1}

    def path(self, given: Given) -> Path:
        """Of an input's drawing: named after its file, or after its whole path where others are called so."""
        from jaxmodels.runs.names import safe_name

        file = Path(given.input) if [*given.place] == ["file"] else None
        name = given.name if file is None or file.stem in self._repeated else file.stem
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{safe_name(name)}.png"
