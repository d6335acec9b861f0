"""The page of one run."""

from __future__ import annotations

import math
import shlex
from typing import Any

from jaxmodels.console import duration, number
from jaxmodels.report import charts, page
from jaxmodels.report.classifier import ClassifierReport, Example
from jaxmodels.report.model import Model
from jaxmodels.report.page import Page, escaped
from jaxmodels.report.read_run import PNG, Run, rates
from jaxmodels.training.profile import HEAD, SHOWN, cells, look


def one_run(run: Run, model: Model | None, seen: dict[str, ClassifierReport], step: int | None) -> Page:
    """Everything that is known of a run. seen: of each evaluation, at the checkpoint of `step`."""
    said = Page(f"{run.name}: report")
    said.add(_header(run, model), notes(run.notes))
    figures = charts.curves([run], [rates(run, batch_of(run, model))], [model.step_flops if model else None])
    if figures:
        said.section("Learning curves", page.choices(axes([run], [model]), True), said.charts(figures))
    else:
        said.section("Learning curves", '<p class="muted">Nothing is logged yet.</p>')
    said.section("Result", _result(run))
    for name, what in seen.items():
        _seen(said, name, what, step)
    said.section("Pictures", _pictures(run))
    said.section("Text", *(f"<h3>{escaped(name)}</h3><pre>{escaped(text)}</pre>" for name, text in run.texts))
    if model is not None:
        said.section("Model", _model(model))
    said.section("Profile", _profile(run))
    ran = f"<div><h3>Where and how</h3>{page.facts(about(run))}</div>"
    said.section("Run", f'<div class="two">{_knobs(run)}{ran}</div>', again(run))
    said.add(footer())
    return said


def headline(run: Run, model: Model | None) -> str | None:
    """The metric a reader wants first: one that a baseline states, by which checkpoints are kept, or no loss."""
    stated = [name for baseline in baselines(run).values() for name in baseline]
    others = [name for name in run.metrics if name.rpartition("/")[2] != "loss"]
    best = [model.best] if model and model.best else []
    return next((name for name in (*stated, *best, *others, *run.metrics) if name in run.metrics), None)


def baselines(run: Run) -> dict[str, dict[str, float]]:
    """What result.json states beside the result."""
    return run.result.get("baselines", {})


def batch_of(run: Run, model: Model | None) -> int | None:
    """Examples in a step, where they are known."""
    knob = run.knobs.get("batch")
    return model.batch if model else knob if isinstance(knob, int) else None


def axes(runs: list[Run], models: list[Model | None]) -> list[tuple[str, str]]:
    """The x axes that all of the runs have."""
    found = [("step", "steps")]
    if all(run.seconds is not None for run in runs):
        found.append(("seconds", "seconds"))
    if all(model is not None and model.step_flops for model in models):
        found.append(("flops", "FLOPs"))
    return found


def state(run: Run) -> str:
    """How the run ended."""
    return str(run.result.get("exit") or "no end is recorded") if run.result else "not finished"


def _header(run: Run, model: Model | None) -> str:
    name, result = headline(run, model), run.result
    score = ""
    if name is not None:
        value = run.metrics[name]
        others = [
            f"<p>{escaped(who)} {number(b[name])} ({difference(value - b[name])})</p>"
            for who, b in baselines(run).items()
            if name in b
        ]
        score = f'<div class="score"><span>{escaped(name)}</span><b>{escaped(number(value))}</b>{"".join(others)}</div>'
    steps = result.get("steps") or max((float(c.step[-1]) for c in run.curves.values()), default=0)
    count = result.get("parameters") or (sum(m.size for m in model.modules) if model else 0)
    devices = run.environment.get("devices") or {}
    spent = (("training", "train_s"), ("in all", "wall_s"))
    pairs = [
        ("state", state(run)),
        ("steps", f"{steps:,.0f}" if steps else ""),
        *((what, duration(result[key])) for what, key in spent if result.get(key)),
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


def _result(run: Run) -> str:
    others, rows = baselines(run), []
    for name, value in run.metrics.items():
        curve = run.curves.get(name)
        known = [float(x) for x in curve.value if math.isfinite(x)] if curve else []
        beside = [number(b[name]) if name in b else "" for b in others.values()]
        ends = [number(min(known)), number(max(known))] if len(known) > 1 else ["", ""]
        rows.append([name, number(value), *beside, *ends])
    if not rows:
        return '<p class="muted">Nothing has been evaluated yet.</p>'
    if not any(row[-1] for row in rows):  # one evaluation
        return page.table(["", "this run", *others], [row[:-2] for row in rows])
    table = page.table(["", "this run", *others, "lowest", "highest"], rows)
    return f'{table}<p class="muted">Lowest and highest: of all its evaluations.</p>'


def _seen(said: Page, name: str, what: ClassifierReport, step: int | None) -> None:
    count = int(what.confusion.sum())
    about = f"{count:,} examples, checkpoint of step {step:,}: accuracy {what.accuracy:.4f}"
    figures = [charts.confusion(what, f"{count:,} examples"), charts.reliability(what), charts.roc(what)]
    numbers = ("examples", "precision", "recall", "F1", "AUC")

    def digits(x):
        return "" if x is None else f"{x:,}" if isinstance(x, int) else f"{x:.4f}"

    rows = [[row["class"], *(digits(row[n]) for n in numbers), row["taken for"]] for row in what.table]
    classes = page.table(["class", *numbers, "most often taken for"], rows, "lrrrrrl")
    said.section(
        f"What the model says of {name}", f'<p class="muted">{escaped(about)}</p>', said.charts(figures)
    )
    said.add("<h3>By class</h3>", page.folded(f"{len(rows):,} classes", classes, shown=len(rows) <= 24))
    titles = {
        "worst": "The worst: least probability for the label",
        "best": "Of each class the best: most probability",
    }
    for which, examples in what.examples.items():
        kind = "cards" if all(_is_picture(x) for x in examples) else "cards wide"
        said.add(f"<h3>{titles[which]}</h3>", f'<div class="{kind}">{"".join(map(_card, examples))}</div>')


def _is_picture(x: Example) -> bool:
    return x.shown is None or (isinstance(x.shown, bytes) and x.shown.startswith(PNG))


def _card(x: Example) -> str:
    about = f"example {x.number}"
    image = f'<span class="muted">{about}</span><br>'
    if isinstance(x.shown, str):
        image += f"<blockquote>{escaped(x.shown)}</blockquote>"
    elif x.shown is not None:
        image = page.picture(x.shown, about) if _is_picture(x) else page.sound(x.shown, about)
    said = f"taken for {escaped(x.said)}, {x.probability:.1%}<br>" if x.said != x.label else ""
    return f"<figure>{image}<figcaption><b>{escaped(x.label)}</b> {x.of_label:.1%}<br>{said}</figcaption></figure>"


def _pictures(run: Run) -> str:
    figures = [
        f"<figure>{page.picture(data, name)}<figcaption>{escaped(name)}</figcaption></figure>"
        for name, data in run.pictures
    ]
    parts = (figures[: run.newest], figures[run.newest :])
    newest, older = (f'<div class="pictures">{"".join(part)}</div>' if part else "" for part in parts)
    return newest + (
        page.folded(f"earlier: {len(figures) - run.newest}", older, shown=False) if older else ""
    )


def _model(model: Model) -> str:
    whole = sum(m.flops for m in model.modules)

    def times(shape):
        return " × ".join(map(str, shape))

    rows = [
        [
            m.path or "(outside of modules)",
            times(m.output or ()),
            ", ".join(f"{name} {times(shape)}" for name, shape in m.parameters.items()),
            f"{m.size:,}" if m.size else "",
            si(m.flops) if m.flops else "",
            f"{m.flops / whole:.1%}" if whole and m.flops else "",
        ]
        for m in model.modules
    ]
    rows.append(["all", "", "", f"{sum(m.size for m in model.modules):,}", si(whole), ""])
    head = ["module", "output", "parameters", "count", "FLOPs", "share"]
    about = (
        f"FLOPs of products and convolutions, forward, for one example; a step of {model.batch:,} examples with its gradient"
        f" takes {si(model.step_flops)}. Counted from abstract shapes. Stacked layers are one row, whose parameters have the"
        " number of layers first."
    )
    table = page.folded(
        f"{len(model.modules)} modules", page.table(head, rows, "lllrrr"), shown=len(rows) <= 32
    )
    return f'<p class="muted">{escaped(about)}</p>{table}'


def _profile(run: Run) -> str:
    """The operations that took most of the time of the steps that were traced."""
    try:
        start, stop, found = (run.profile[key] for key in ("first", "last", "operations"))
        shown = [cells(row) for row in found[:SHOWN]]
        rest = 1 - sum(row["share"] for row in found[:SHOWN])
        about = (
            f"The most expensive operations of steps {start:,} to {stop:,}, by flax's modules: milliseconds and times of one"
            " step, on all devices and threads together, without what an operation calls."
            f" {len(found) - len(shown):,} others took {max(0.0, rest):.1%}."
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        return "" if not run.profile else '<p class="muted">profile/operations.json says what cannot be.</p>'
    ways = escaped("\n".join(look(run.path)))
    trace = f"<h3>The trace</h3><pre>{ways}</pre>" if ways else ""
    return f'<p class="muted">{escaped(about)}</p>{page.table(HEAD, shown, "lllrrr")}{trace}'


def about(run: Run) -> list[tuple[str, str]]:
    """How, where and with what it ran."""
    r, e = run.result, run.environment
    memory, wait, train = r.get("peak_memory_bytes"), r.get("input_idle_s"), r.get("train_s")
    devices, versions = e.get("devices") or {}, e.get("versions") or {}
    options = [
        f"{k} {v}"
        for k, v in (e.get("options") or run.options).items()
        if v not in ("", 0, [], False, None, "auto")
    ]
    return [
        ("state", state(run)),
        ("peak memory", f"{memory / 2**20:,.0f} MiB" if memory else ""),
        ("compilation", f"{r['compile_s']:.1f} s" if r.get("compile_s") else ""),
        (
            "waited for input",
            f"{wait:.2f} s, {wait / train:.1%} of training" if wait is not None and train else "",
        ),
        ("steps per dispatch", str(r.get("steps_per_dispatch") or "")),
        ("batches skipped", str(r.get("skipped") or "")),
        (
            "devices",
            f"{devices.get('count')} × {devices.get('kind')} ({devices.get('platform')})" if devices else "",
        ),
        ("processes", str(e.get("processes", ""))),
        ("cores", str(e.get("cores", ""))),
        ("system", str(e.get("system", ""))),
        (
            "versions",
            ", ".join(f"{k} {v}" for k, v in {"python": e.get("python", ""), **versions}.items() if v),
        ),
        ("commit", str(e.get("commit") or "")),
        ("started", str(e.get("started", ""))),
        ("options", ", ".join(options)),
    ]


def _knobs(run: Run) -> str:
    if not run.knobs:
        return ""
    return f"<div><h3>Knobs</h3>{page.facts([(k, shown(v)) for k, v in run.knobs.items()])}</div>"


def shown(x: Any) -> str:
    """A knob's value."""
    return ", ".join(map(str, x)) if isinstance(x, list) else "(empty)" if x == "" else str(x)


def again(run: Run) -> str:
    """The command that made it."""
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
        "Long curves are drawn by few points: of each bucket of steps the lowest and the highest value stay (pale line), and"
        " the full line is the mean of each bucket. Drag to enlarge, double-click to go back."
    )
    return f"<footer><p>{escaped(text)}</p><p>Made by jaxmodels report; charts by plotly.js.</p></footer>"


def si(x: float) -> str:
    """1.23 G."""
    power = min(max(int(math.log10(x)) // 3, 0), 7) if x > 0 else 0
    return f"{x / 1000**power:.3g} {('', 'k', 'M', 'G', 'T', 'P', 'E', 'Z')[power]}".rstrip()
