"""The page of one run."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from typing import Any

from jaxmodels.analysis.trace import HEAD, cells
from jaxmodels.console import duration, number
from jaxmodels.report import charts, page
from jaxmodels.report.classifier import ClassifierReport, ClassRow, Example
from jaxmodels.report.model import Model
from jaxmodels.report.page import Page, escaped
from jaxmodels.report.read_run import PNG, Run, rates
from jaxmodels.report.transcripts import Transcripts, add_transcripts
from jaxmodels.training.profile import SHOWN, viewers

SHOWN_CLASSES, SHOWN_MODULES = 24, 32  # rows up to which a table is not folded away


def run_page(
    run: Run, model: Model | None, reports: Mapping[str, ClassifierReport | Transcripts], step: int | None
) -> Page:
    """All that is known of a run. reports: by evaluation, of the checkpoint of `step`."""
    document = Page(f"{run.name}: report")
    document.add(_header(run, model), notes(run.notes))
    figures = charts.curves([run], [rates(run, batch_of(run, model))], [model.step_flops if model else None])
    if figures:
        document.section(
            "Learning curves", page.choices(axes([run], [model]), True), document.charts(figures)
        )
    else:
        document.section("Learning curves", '<p class="muted">Nothing is logged yet.</p>')
    document.section("Result", _metrics(run))
    for name, report in reports.items():
        if isinstance(report, Transcripts):
            add_transcripts(document, name, report, step)
        else:
            _add_predictions(document, name, report, step)
    document.section("Images", _images(run))
    sounds = [
        f"<figure>{page.sound(data, name)}<figcaption>{escaped(name)}</figcaption></figure>"
        for name, data in run.sounds
    ]
    document.section("Sounds", f'<div class="images">{"".join(sounds)}</div>' if sounds else "")
    texts = [f"<h3>{escaped(name)}</h3><pre>{escaped(text)}</pre>" for name, text in run.texts]
    document.section("Text", *texts)
    if model is not None:
        document.section("Model", _modules(model))
    document.section("Profile", _profile(run))
    environment = f"<div><h3>Where and how</h3>{page.facts(environment_facts(run))}</div>"
    document.section("Run", f'<div class="two">{_knobs(run)}{environment}</div>', command(run))
    document.add(footer())
    return document


def headline(run: Run, model: Model | None) -> str | None:
    """The metric a reader wants first: of a baseline, the one by which checkpoints are kept, or no loss."""
    of_baselines = [name for metrics in baselines(run).values() for name in metrics]
    others = [name for name in run.metrics if name.rpartition("/")[2] != "loss"]
    best = [model.best] if model and model.best else []
    candidates = (*of_baselines, *best, *others, *run.metrics)
    return next((name for name in candidates if name in run.metrics), None)


def baselines(run: Run) -> dict[str, dict[str, float]]:
    """Metrics of baselines, by the baseline's name, from result.json."""
    return run.result.get("baselines", {})


def batch_of(run: Run, model: Model | None) -> int | None:
    """Examples of a step, where they are known."""
    knob = run.knobs.get("batch")
    return model.batch if model else knob if isinstance(knob, int) else None


def axes(runs: list[Run], models: list[Model | None]) -> list[tuple[str, str]]:
    """The x axes that all of the runs have."""
    common = [("step", "steps")]
    if all(run.seconds is not None for run in runs):
        common.append(("seconds", "seconds"))
    if all(model is not None and model.step_flops for model in models):
        common.append(("flops", "FLOPs"))
    return common


def state(run: Run) -> str:
    """How the run ended."""
    return str(run.result.get("exit") or "no end is recorded") if run.result else "not finished"


def _header(run: Run, model: Model | None) -> str:
    name, result = headline(run, model), run.result
    score = ""
    if name is not None:
        value = run.metrics[name]
        others = [
            f"<p>{escaped(baseline)} {number(metrics[name])} ({difference(value - metrics[name])})</p>"
            for baseline, metrics in baselines(run).items()
            if name in metrics
        ]
        best = f"<b>{escaped(number(value))}</b>"
        score = f'<div class="score"><span>{escaped(name)}</span>{best}{"".join(others)}</div>'
    steps = result.get("steps") or max((float(c.step[-1]) for c in run.curves.values()), default=0)
    count = result.get("parameters") or (sum(m.size for m in model.modules) if model else 0)
    devices = run.environment.get("devices") or {}
    times = (("training", "train_s"), ("total", "wall_s"))
    pairs = [
        ("state", state(run)),
        ("steps", f"{steps:,.0f}" if steps else ""),
        *((name, duration(result[key])) for name, key in times if result.get(key)),
        ("examples per second", f"{result['examples_per_s']:,.0f}" if result.get("examples_per_s") else ""),
        ("parameters", f"{count:,}" if count else ""),
        ("FLOPs of the model", si(model.step_flops * steps) if model else ""),
        ("devices", f"{devices.get('count')} × {devices.get('kind')}" if devices else ""),
    ]
    about = f'<p class="muted">{escaped(run.about)}</p>' if run.about else ""
    head = f'<div class="head"><div><h1>{escaped(run.name)}</h1>{about}</div>{score}</div>'
    return f"<header>{head}{page.facts(pairs, 'facts')}</header>"


def difference(x: float) -> str:
    """+0.0135, with a minus sign as long as the plus."""
    return f"{'−' if x < 0 else '+'}{number(abs(x))}"


def notes(lines: list[str]) -> str:
    """What is missing or damaged."""
    return f'<div class="notes">{"".join(f"<p>{escaped(line)}</p>" for line in lines)}</div>' if lines else ""


def _metrics(run: Run) -> str:
    others, rows = baselines(run), []
    for name, value in run.metrics.items():
        curve = run.curves.get(name)
        values = [float(x) for x in curve.value if math.isfinite(x)] if curve else []
        of_baselines = [number(metrics[name]) if name in metrics else "" for metrics in others.values()]
        ends = [number(min(values)), number(max(values))] if len(values) > 1 else ["", ""]
        rows.append([name, number(value), *of_baselines, *ends])
    if not rows:
        return '<p class="muted">Nothing has been evaluated yet.</p>'
    if not any(row[-1] for row in rows):  # one evaluation
        return page.table(["", "this run", *others], [row[:-2] for row in rows])
    table = page.table(["", "this run", *others, "lowest", "highest"], rows)
    return f'{table}<p class="muted">Lowest and highest: of all its evaluations.</p>'


def _add_predictions(document: Page, name: str, report: ClassifierReport, step: int | None) -> None:
    count = int(report.confusion.sum())
    about = f"{count:,} examples, checkpoint of step {step:,}: accuracy {report.accuracy:.4f}"
    confusion = charts.confusion(report, f"{count:,} examples")
    figures = document.charts([confusion, charts.reliability(report), charts.roc(report)])
    document.section(f"Predictions on {name}", f'<p class="muted">{escaped(about)}</p>', figures)
    head = ["class", "examples", "precision", "recall", "F1", "AUC", "most often confused with"]
    classes = page.table(head, [_class_cells(row) for row in report.table], "lrrrrrl")
    count = len(report.table)
    document.add(
        "<h3>By class</h3>", page.folded(f"{count:,} classes", classes, shown=count <= SHOWN_CLASSES)
    )
    titles = {
        "worst": "Worst examples: the lowest probability of the label",
        "best": "Best example of each class: the highest probability of the label",
    }
    for which, examples in report.examples.items():
        kind = "cards" if all(_is_narrow(x) for x in examples) else "cards wide"
        document.add(
            f"<h3>{titles[which]}</h3>", f'<div class="{kind}">{"".join(map(_card, examples))}</div>'
        )


def _class_cells(row: ClassRow) -> list[str]:
    metrics = (row.precision, row.recall, row.f1, row.auc)
    digits = ["" if x is None else f"{x:.4f}" for x in metrics]
    return [row.name, f"{row.examples:,}", *digits, row.confused_with]


def _is_narrow(x: Example) -> bool:
    """Whether an example is shown by an image, or by nothing."""
    return x.content is None or (isinstance(x.content, bytes) and x.content.startswith(PNG))


def _card(x: Example) -> str:
    about = f"example {x.number}"
    content = f'<span class="muted">{about}</span><br>'
    if isinstance(x.content, str):
        content += f"<blockquote>{escaped(x.content)}</blockquote>"
    elif x.content is not None:
        content = page.image(x.content, about) if _is_narrow(x) else page.sound(x.content, about)
    caption = f"<b>{escaped(x.label)}</b> {x.label_probability:.1%}<br>"
    if x.predicted != x.label:
        caption += f"predicted {escaped(x.predicted)}, {x.probability:.1%}<br>"
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def _images(run: Run) -> str:
    figures = [
        f"<figure>{page.image(data, name)}<figcaption>{escaped(name)}</figcaption></figure>"
        for name, data in run.images
    ]
    newest, older = figures[: run.newest], figures[run.newest :]
    parts = f'<div class="images">{"".join(newest)}</div>' if newest else ""
    if older:
        folded = f'<div class="images">{"".join(older)}</div>'
        parts += page.folded(f"earlier: {len(older)}", folded, shown=False)
    return parts


def _modules(model: Model) -> str:
    total = sum(m.flops for m in model.modules)

    def times(shape):
        return " × ".join(map(str, shape))

    rows = []
    for module in model.modules:
        parameters = ", ".join(f"{name} {times(shape)}" for name, shape in module.parameters.items())
        rows.append(
            [
                module.path or "(outside of modules)",
                times(module.output or ()),
                parameters,
                f"{module.size:,}" if module.size else "",
                si(module.flops) if module.flops else "",
                f"{module.flops / total:.1%}" if total and module.flops else "",
            ]
        )
    rows.append(["all", "", "", f"{sum(m.size for m in model.modules):,}", si(total), ""])
    head = ["module", "output", "parameters", "count", "FLOPs", "share"]
    about = (
        "FLOPs of matrix products and convolutions, forward, for one example; a step of "
        f"{model.batch:,} examples with its gradient takes {si(model.step_flops)}. Counted from shapes. "
        "Stacked layers are one row, whose parameters have the number of layers first."
    )
    table = page.table(head, rows, "lllrrr")
    folded = page.folded(f"{len(model.modules)} modules", table, shown=len(rows) <= SHOWN_MODULES)
    return f'<p class="muted">{escaped(about)}</p>{folded}'


def _profile(run: Run) -> str:
    """The operations that took most of the time of the steps that were traced."""
    if not run.profile:
        return ""
    try:
        start, stop, operations = (run.profile[key] for key in ("first", "last", "operations"))
        rows = [cells(row) for row in operations[:SHOWN]]
        rest = 1 - sum(row["share"] for row in operations[:SHOWN])
        about = (
            f"The most expensive operations of steps {start:,} to {stop:,}, by flax's modules: milliseconds "
            "and calls of one step, on all devices and threads together, without what an operation calls. "
            f"{len(operations) - len(rows):,} others took {max(0.0, rest):.1%}."
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return '<p class="muted">profile/operations.json holds values that no profile has.</p>'
    commands = escaped("\n".join(viewers(run.path)))
    trace = f"<h3>The trace</h3><pre>{commands}</pre>" if commands else ""
    return f'<p class="muted">{escaped(about)}</p>{page.table(HEAD, rows, "lllrrr")}{trace}'


def environment_facts(run: Run) -> list[tuple[str, str]]:
    """How, where and with what it ran."""
    result, environment = run.result, run.environment
    memory, compilation = result.get("peak_memory_bytes"), result.get("compile_s")
    idle, train = result.get("input_idle_s"), result.get("train_s")
    waited = f"{idle:.2f} s, {idle / train:.1%} of training" if idle is not None and train else ""
    devices = environment.get("devices") or {}
    device = f"{devices.get('count')} × {devices.get('kind')} ({devices.get('platform')})" if devices else ""
    versions = {"python": environment.get("python", ""), **(environment.get("versions") or {})}
    options = [
        f"{name} {value}"
        for name, value in (environment.get("options") or run.options).items()
        if value not in ("", 0, [], False, None, "auto")
    ]
    return [
        ("state", state(run)),
        ("peak memory", f"{memory / 2**20:,.0f} MiB" if memory else ""),
        ("compilation", f"{compilation:.1f} s" if compilation else ""),
        ("waited for input", waited),
        ("steps per dispatch", str(result.get("steps_per_dispatch") or "")),
        ("batches skipped", str(result.get("skipped") or "")),
        ("devices", device),
        ("processes", str(environment.get("processes", ""))),
        ("cores", str(environment.get("cores", ""))),
        ("system", str(environment.get("system", ""))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version)),
        ("commit", str(environment.get("commit") or "")),
        ("started", str(environment.get("started", ""))),
        ("options", ", ".join(options)),
    ]


def _knobs(run: Run) -> str:
    if not run.knobs:
        return ""
    return f"<div><h3>Knobs</h3>{page.facts([(k, knob_text(v)) for k, v in run.knobs.items()])}</div>"


def knob_text(value: Any) -> str:
    """A knob's value."""
    return ", ".join(map(str, value)) if isinstance(value, list) else "(empty)" if value == "" else str(value)


def command(run: Run) -> str:
    """The command that repeats the run, where it is known."""
    words = run.environment.get("command")
    if not isinstance(words, list) or not words:
        return ""
    words = [str(word) for word in words]
    lines = [shlex.join(["jaxmodels", *words[1:]] if "jaxmodels" in words[0] else words)]
    commit = str(run.environment.get("commit") or "")
    if commit and not commit.endswith("-dirty"):
        lines.insert(0, f"git checkout {commit}")
    changed = " (with changes that were not committed)" if commit.endswith("-dirty") else ""
    return f"<h3>The command that repeats it{changed}</h3><pre>{escaped(chr(10).join(lines))}</pre>"


def footer() -> str:
    """How to read the page."""
    text = (
        "Long curves are drawn by few points: the lowest and the highest value of each bucket of steps (pale "
        "line), and the mean of each bucket (full line). Drag to enlarge, double-click to go back."
    )
    return f"<footer><p>{escaped(text)}</p><p>Made by jaxmodels report; charts by plotly.js.</p></footer>"


def si(x: float) -> str:
    """1.23 G."""
    power = min(max(int(math.log10(x)) // 3, 0), 7) if x > 0 else 0
    return f"{x / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')[power]}".rstrip()
