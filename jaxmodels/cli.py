"""The command line. Nothing heavy is imported before a command is known to need it.

Exit status: 0 done, 1 failed, 2 bad input, 3 the loss was not finite, 75 no step came to its end (--stall-after), 76 another
process of the run was lost, 130 stopped by Ctrl-C and saved, 143 stopped by SIGTERM and saved.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jaxmodels import cluster
from jaxmodels.guard import PEER_LOST

FAILED, BAD_INPUT, NOT_FINITE = 1, 2, 3

HELP = """\
usage: jaxmodels COMMAND …

  train FILE [--knob VALUE …] [options]   train an experiment's file, or go on where its run stopped
  sweep FILE --knob V1,V2,… [options]     train many settings together, and compare them
  plan FILE --on v5p-512 [options]        memory, speed and cost of training on a machine that is not here
  launch FILE --processes N …             the same in N processes on this computer
  template slurm|jobset|tpu FILE …        a script that trains it on a cluster
  evaluate RUN                            evaluate a run's checkpoint
  predict RUN FILES…                      what a run's model says of pictures, and drawings of it
  generate RUN|FOLDER --prompt TEXT …     let the language model of a run, or of a folder of weights, write
  report RUN…|SWEEP -o report.html        one HTML file of a run, of several beside each other, or of a sweep
  watch RUN|SWEEP                         how far it is, in the terminal, until it ends
  find-rate FILE                          the loss as the learning rate rises: which one to begin with
  find-batch FILE                         the largest batch that fits the device
  list [FOLDER]                           experiments, what they state, and their last results
  doctor                                  devices, versions, what works and how fast
  tokenize FILES OUT                      train a tokenizer on texts and write their tokens
  convert FOLDER OUT                      check and rewrite a Hugging Face folder, or a file of llama2.c
  verify-resume FILE [--knob VALUE …]     prove that an experiment survives kill -9, bit for bit

jaxmodels COMMAND --help                  the options of a command
jaxmodels train FILE --help               the knobs of a file, with types and defaults

Exit status: 0 done, 1 failed, 2 bad input, 3 the loss was not finite,
75 no step came to its end within --stall-after, 76 another process of the run was lost
(both: the same command goes on), 130 stopped by Ctrl-C and saved, 143 stopped by SIGTERM and saved.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit status."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands: dict[str, Callable[[list[str]], int]] = {
        "train": _train,
        "sweep": _sweep,
        "plan": _plan,
        "launch": _launch,
        "template": _template,
        "evaluate": _evaluate,
        "predict": _predict,
        "generate": _generate,
        "report": _make_report,
        "watch": _watch,
        "find-rate": _find_rate,
        "find-batch": _find_batch,
        "list": _list,
        "doctor": _doctor,
        "tokenize": _tokenize,
        "convert": _convert,
        "verify-resume": _verify,
    }
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP, end="")
        return 0 if argv else BAD_INPUT
    if argv[0] == "--version":
        from jaxmodels import __version__

        print(f"jaxmodels {__version__}")
        return 0
    if argv[0] not in commands:
        import difflib

        close = difflib.get_close_matches(argv[0], commands, n=1)
        hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(commands)}"
        return _fail(f"there is no command {argv[0]!r}; {hint}", BAD_INPUT)
    try:
        return commands[argv[0]](argv[1:])
    except KeyboardInterrupt:
        return _fail("interrupted; nothing newer than the last checkpoint was saved", 130)
    except Exception as error:
        status = None if os.environ.get("JAXMODELS_TRACEBACK") else _explain(error)
        if status is None:
            raise
        return status


def _explain(error: Exception) -> int | None:
    """The exit status after a user's mistake or the world's fault in one message; None for anything else."""
    kind = type(error).__name__
    if kind == "FirstFailed":  # process 0 has said it
        kinds = {"NotFinite": NOT_FINITE, "ValueError": BAD_INPUT, "ImportError": BAD_INPUT, "Damaged": BAD_INPUT}
        return kinds.get(error.kind, FAILED)  # type: ignore[attr-defined]
    if _in_company() and _of_xla(error):
        return _fail(f"a computation across processes failed: {str(error).splitlines()[0][:300]}", PEER_LOST)
    if kind == "NotFinite":
        return _fail(str(error), NOT_FINITE)
    if isinstance(error, MemoryError | OSError) or kind == "PartLost":
        return _fail(str(error), FAILED)
    if isinstance(error, ValueError | ImportError) and _raised_here(error):  # ImportError: of a package that is an extra
        return _fail(str(error), BAD_INPUT)
    return None


def _raised_here(error: BaseException) -> bool:
    """Whether the innermost frame is this package's: then the message was written for the user."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    here = str(Path(__file__).resolve().parent) + os.sep
    return trace is not None and str(Path(trace.tb_frame.f_code.co_filename).resolve()).startswith(here)


def _of_xla(error: Exception) -> bool:
    """Whether XLA's runtime has failed; JAX hands its status on as one or another type."""
    import re

    status = re.match(r"[A-Z]+(_[A-Z]+)*: ", str(error)) is not None
    return type(error).__name__ == "JaxRuntimeError" or (status and not _raised_here(error))


def _in_company() -> bool:
    """Whether this process trains with others; it joined them by a module that is then there."""
    processes = sys.modules.get("jaxmodels.processes")
    return processes is not None and processes.count() > 1


def _fail(text: str, status: int) -> int:
    print(f"error: {text}", file=sys.stderr)
    return status


def _parse(command: str, argv: list[str], first: str, parts: dict[str, type], *, about: str = "") -> dict[str, Any]:
    """The command line as one object for each of `parts`; tyro prints help and mistakes, and exits."""
    import dataclasses

    import tyro

    fields = [(name, kind, dataclasses.field(default_factory=kind)) for name, kind in parts.items()]
    whole = dataclasses.make_dataclass("Arguments", fields, kw_only=True)
    whole.__doc__ = about
    got: Any = tyro.cli(
        whole,
        prog=f"jaxmodels {command} {first}",
        args=argv,
        description=about,
        config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
    )
    return {name: getattr(got, name) for name in parts}


def _first(command: str, argv: list[str], what: str, parts: dict[str, type], about: str) -> tuple[str, list[str]]:
    """The positional argument, and the rest; help, or a mistake, where it is absent."""
    if argv and not argv[0].startswith("-"):
        return argv[0], argv[1:]
    if argv and argv[0] in ("-h", "--help"):
        _parse(command, ["--help"], what, parts, about=about)
    raise SystemExit(_fail(f"jaxmodels {command} needs {what} first; see jaxmodels {command} --help", BAD_INPUT))


def _train(argv: list[str]) -> int:
    from jaxmodels.options import Joining, Options, Place, Printing

    parts = {"running": Options, "place": Place, "joining": Joining, "printing": Printing}
    about = "Train an experiment's file. Its knobs are options too: jaxmodels train FILE --help lists them."
    path, rest = _first("train", argv, "FILE", parts, about)

    from jaxmodels import commands, loading, processes, runner
    from jaxmodels.console import Console
    from jaxmodels.metrics import finite

    if not {"-h", "--help"} & {*rest}:
        processes.join(cluster.find(rest, os.environ))  # before the file is run, which may use a device
    file, got, knobs = _knobs("train", path, rest, parts)
    printing = got["printing"]
    console = Console(quiet=printing.quiet, json=printing.json, muted=not processes.first())
    place = got["place"]
    folder = Path(place.folder or Path("runs") / loading.run_name(file, file.config(**knobs)))
    console.say(f"{file.path} → {folder}", "bold")
    try:
        result = commands.train(
            path, console=console, **vars(got["running"]), **{**vars(place), "folder": str(folder)}, **knobs
        )
    except runner.Interrupted as stop:
        console.say(f"saved at step {stop.step:,} in {folder}; the same command goes on from there", "bold")
        if printing.json and processes.first():
            print(json.dumps({"folder": str(folder), "exit": str(stop), "step": stop.step}))
        return 128 + stop.number if stop.number > 0 else 0
    if not processes.first():
        return 0
    _report(console, file, folder, result, rest)
    if printing.json:
        print(json.dumps(finite({"folder": str(folder), **result.summary})))
    return 0


def _launch(argv: list[str]) -> int:
    import dataclasses

    from jaxmodels.options import Launching, Options, Place, Printing

    parts = {"launching": Launching, "running": Options, "place": Place, "printing": Printing}
    about = "Train an experiment's file in several processes on this computer; knobs and train's options are options too."
    words, ours = list(argv), [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(Launching)]
    for _ in range(len(words)):  # what comes before the file
        if words[0].partition("=")[0] in ours:
            at = 1 if "=" in words[0] else 2
            words = [*words[at:], *words[:at]]
    path, rest = _first("launch", words, "FILE", parts, about)

    from jaxmodels import loading
    from jaxmodels.console import Console
    from jaxmodels.launching import launch

    file, got, knobs = _knobs("launch", path, rest, parts)
    folder = got["place"].folder or str(Path("runs") / loading.run_name(file, file.config(**knobs)))
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    return launch([path, *_without(rest, ours)], Path(folder), console=console, **vars(got["launching"]))


def _without(words: list[str], options: list[str]) -> list[str]:
    """The command line without these options and their values."""
    kept, skip = [], False
    for word in words:
        if not skip and word.partition("=")[0] not in options:
            kept.append(word)
        skip = not skip and word in options
    return kept


def _template(argv: list[str]) -> int:
    from jaxmodels.options import Templating

    parts: dict[str, type] = {"templating": Templating}
    about = "Print a script that trains an experiment's file on a cluster; what follows -- are train's options and knobs."
    kind, rest = _first("template", argv, "slurm|jobset|tpu", parts, about)
    path, rest = _first(f"template {kind}", rest, "FILE", parts, about)
    at = rest.index("--") if "--" in rest else len(rest)
    got = _parse(f"template {kind}", rest[:at], path, parts, about=about)["templating"]

    from jaxmodels.templates import template

    print(template(kind, path, rest[at + 1 :], **vars(got)), end="")
    return 0


def _knobs(command: str, path: str, rest: list[str], parts: dict[str, type]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """(file, parsed parts, knobs) of an experiment's file and the options after it."""
    import dataclasses

    from jaxmodels import loading

    file = loading.load(path)
    names = {f.name for kind in parts.values() for f in dataclasses.fields(kind)}
    clash = [f.name for f in dataclasses.fields(file.config) if f.name in names]
    if clash:
        raise ValueError(f"{path}: knob {clash[0]} has the name of an option of jaxmodels {command}; rename the knob")
    about = (file.module.__doc__ or "").strip()
    got: dict[str, Any] = _parse(command, rest, path, {"knobs": file.config, **parts}, about=about)
    config = got.pop("knobs")
    return file, got, {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}


def _report(console: Any, file: Any, folder: Path, result: Any, rest: list[str]) -> None:
    """What a person wants to know at the end."""
    from jaxmodels import commands, loading
    from jaxmodels.console import duration, number
    from jaxmodels.profiling import look

    summary = result.summary
    names = list(result.metrics)
    if names:
        baselines = summary["baselines"]
        columns = ["", "this run", *baselines]
        rows = [
            [name, number(result.metrics[name]), *(number(b[name]) if name in b else "" for b in baselines.values())]
            for name in names
        ]
        console.say()
        console.table("Result", columns, rows)
    facts = [f"{summary['steps']:,} steps"]
    if summary["examples_per_s"]:
        facts += [f"{summary['examples_per_s']:,.0f} examples/s", f"{duration(summary['wall_s'])} in all"]
        facts += [f"{summary['compile_s']:.0f} s of it compiling"]
    if summary["skipped"]:
        facts += [f"{summary['skipped']} batches skipped as not finite"]
    console.say("\n" + ", ".join(facts))
    if _in_company():  # the parameters may lie on all of them
        console.say(f"\n{folder}", "bold")
        console.say("  go on    the same command, given to all processes")
        console.say(f"  evaluate jaxmodels evaluate {folder}")
        return
    config = loading.make_config(file, json.loads((folder / "knobs.json").read_text())["knobs"])
    experiment = file.build(config)
    if experiment.decoder is not None and not console.quiet:
        [wrote] = commands.sample(experiment, result.state, tokens=300)
        (folder / "sample.txt").write_text(wrote.whole, "utf-8")
        console.say(f"\nA sample after {wrote.prompt!r}", "bold")
        console.say(wrote.whole)
    console.say(f"\n{folder}", "bold")
    again = [word for word in rest if word not in ("--fresh", "--force")]
    console.say(f"  go on    jaxmodels train {' '.join([str(file.path), *again])}")
    console.say(f"  evaluate jaxmodels evaluate {folder}")
    console.say(f"  look     jaxmodels report {folder}")
    if trace := look(folder):
        console.say(f"  trace    {trace}")
    if experiment.decoder is not None:
        console.say(f"  sample   jaxmodels generate {folder} --prompt {experiment.decoder.prompt!r}")


def _sweep(argv: list[str]) -> int:
    from jaxmodels.options import Printing, Sweeping

    parts = {"sweeping": Sweeping, "printing": Printing}
    about = "Train many settings of an experiment's knobs together, as in --lr 1e-4,3e-4 --seed 0..7."
    path, rest = _first("sweep", argv, "FILE", parts, about)

    os.environ.setdefault("JAX_NUM_CPU_DEVICES", str(min(os.cpu_count() or 1, 8)))  # members at the same time, on CPUs
    from jaxmodels.sweep import show

    return show.main(path, rest, lambda words: _parse("sweep", words, path, parts, about=about))


def _plan(argv: list[str]) -> int:
    from jaxmodels.options import Planning, Printing

    parts = {"planning": Planning, "printing": Printing}
    about = "What training an experiment's file would take on a machine that is not here; its knobs are options too."
    path, rest = _first("plan", argv, "FILE", parts, about)

    from jaxmodels.console import Console
    from jaxmodels.planning import command, report

    _, got, knobs = _knobs("plan", path, rest, parts)
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    planned = command.plan(path, console=console, **vars(got["planning"]), **knobs)
    report.show(planned, console)
    if got["printing"].json:
        print(json.dumps(planned))
    return 0


def _evaluate(argv: list[str]) -> int:
    from jaxmodels.options import Joining, Printing, Restoring, Scoring

    parts = {"scoring": Scoring, "restoring": Restoring, "joining": Joining, "printing": Printing}
    about = "Evaluate a checkpoint of a run with the run's own experiment, or a language model on given texts."
    run, rest = _first("evaluate", argv, "RUN", parts, about)
    got = _parse("evaluate", rest, run, parts, about=about)

    from jaxmodels import commands, processes
    from jaxmodels.console import Console, number
    from jaxmodels.metrics import finite

    processes.join(cluster.find(rest, os.environ), preemption=False)
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json, muted=not processes.first())
    metrics = commands.evaluate(run, console=console, **vars(got["scoring"]), **vars(got["restoring"]))
    console.table(run, ["", "value"], [[name, number(value)] for name, value in metrics.items()])
    if got["printing"].json and processes.first():
        print(json.dumps(finite({"run": run, "metrics": metrics})))
    return 0


def _names(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before the first option, and the rest."""
    count = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return words[:count], words[count:]


def _predict(argv: list[str]) -> int:
    from jaxmodels.options import Printing, Restoring, Writing

    parts = {"writing": Writing, "restoring": Restoring, "printing": Printing}
    about = "What a run's model, or one from elsewhere, says of files, such as pictures; and drawings of it."
    run, rest = _first("predict", argv, "RUN", parts, about)
    files, rest = _names(rest)
    if not files and not {"-h", "--help"} & set(rest):
        _first("predict RUN", rest, "FILES", parts, about)
    got = _parse("predict", rest, f"{run} {' '.join(files)}", parts, about=about)

    from jaxmodels import commands
    from jaxmodels.console import Console

    printing = got["printing"]
    console = Console(quiet=printing.quiet, json=printing.json)
    said = commands.predict(run, files, warn=console.warn, **vars(got["writing"]), **vars(got["restoring"]))
    for one in said:
        console.say(one["file"], "bold")
        for name, value in one.items():
            if name == "likeliest":
                value = ", ".join(f"{label} {probability:.1%}" for label, probability in value.items())
            elif name == "probability":
                value = f"{value:.1%}"
            if name != "file":
                console.say(f"  {name:12} {value}")
    if printing.json:
        print(json.dumps({"run": run, "predictions": said}))
    return 0


def _generate(argv: list[str]) -> int:
    from jaxmodels.options import Printing, Restoring, Sampling

    parts = {"sampling": Sampling, "restoring": Restoring, "printing": Printing}
    about = "Let a language model write: a run's, or one in a folder from elsewhere."
    run, rest = _first("generate", argv, "RUN", parts, about)
    got = _parse("generate", rest, run, parts, about=about)

    from jaxmodels import commands
    from jaxmodels.console import Console

    printing, how = got["printing"], vars(got["sampling"])
    console = Console(quiet=printing.quiet, json=printing.json)
    streams = not printing.json and len(how["prompt"]) == 1

    def show(_: int, text: str) -> None:
        print(text, end="", flush=True)

    texts = commands.generate(run, warn=console.warn, show=show if streams else None, **vars(got["restoring"]), **how)
    if printing.json:
        print(json.dumps({"run": run, "texts": [text._asdict() for text in texts]}))
    elif streams:
        print()
    else:
        print("\n\n".join(text.whole for text in texts))
    return 0


def _make_report(argv: list[str]) -> int:
    from jaxmodels.options import Printing, Reporting

    parts = {"reporting": Reporting, "printing": Printing}
    about = "One HTML file of a run, of several, or of a sweep, that needs neither a server nor a network."
    argv = ["--out" if word == "-o" else word for word in argv]
    run, rest = _first("report", argv, "RUN", parts, about)
    runs, rest = _names(rest)
    got = _parse("report", rest, " ".join([run, *runs]), parts, about=about)

    from jaxmodels.console import Console
    from jaxmodels.report.command import report

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    path = report([run, *runs], console=console, **vars(got["reporting"]))
    console.say(f"{path}, {path.stat().st_size / 1e6:.1f} MB: open it in a browser", "bold")
    if got["printing"].json:
        print(json.dumps({"runs": [run, *runs], "report": str(path)}))
    return 0


def _watch(argv: list[str]) -> int:
    from jaxmodels.options import Watching

    parts: dict[str, type] = {"watching": Watching}
    about = "A run, or a sweep, as it goes on: read from its folder, on any computer that sees it. Ctrl-C ends the watching."
    run, rest = _first("watch", argv, "RUN", parts, about)
    once = _parse("watch", rest, run, parts, about=about)["watching"].once

    import contextlib

    from jaxmodels.watch import watch

    with contextlib.suppress(KeyboardInterrupt):
        watch(run, once=once)
    return 0


def _find_rate(argv: list[str]) -> int:
    from jaxmodels.options import Options, Printing, Rising, Trying

    parts: dict[str, type] = {"rising": Rising, "trying": Trying, "printing": Printing}
    about = "Train some steps at a rate that rises, and show the loss over it; the file's knobs are options too."
    path, rest = _first("find-rate", argv, "FILE", parts, about)
    _, got, knobs = _knobs("find-rate", path, rest, parts)

    from jaxmodels.console import Console
    from jaxmodels.find_rate import find_rate, show

    console, options = Console(quiet=got["printing"].quiet, json=got["printing"].json), Options(**vars(got["trying"]))
    found = find_rate(path, console=console, options=options, **vars(got["rising"]), **knobs)
    show(path, found, list(knobs), console)
    if got["printing"].json:
        print(json.dumps({"file": path, **found}))
    return 0


def _find_batch(argv: list[str]) -> int:
    from jaxmodels.options import Filling, Options, Printing, Trying

    parts: dict[str, type] = {"filling": Filling, "trying": Trying, "printing": Printing}
    about = "Find the largest batch whose training step fits the device; the file's knobs are options too."
    path, rest = _first("find-batch", argv, "FILE", parts, about)
    _, got, knobs = _knobs("find-batch", path, rest, parts)

    from jaxmodels.console import Console
    from jaxmodels.find_batch import find_batch

    console, options = Console(quiet=got["printing"].quiet, json=got["printing"].json), Options(**vars(got["trying"]))
    found = find_batch(path, console=console, options=options, **vars(got["filling"]), **knobs)
    knob = got["filling"].knob
    console.say(f"\n{found['batch']:,} fits, and two steps were made with it", "bold")
    console.say(f"  jaxmodels train {path} --{knob.replace('_', '-')} {found['batch']}")
    if got["printing"].json:
        print(json.dumps({"file": path, **found}))
    return 0


def _list(argv: list[str]) -> int:
    from jaxmodels.options import Listing, Printing

    parts: dict[str, type] = {"listing": Listing, "printing": Printing}
    folders, rest = _names(argv)
    got = _parse("list", rest, "[FOLDER]", parts, about="The experiments' files of a folder, by default of experiments.")

    from jaxmodels.console import Console
    from jaxmodels.listing import list_experiments, show

    found = [of for folder in folders or ["experiments"] for of in list_experiments(folder, runs=got["listing"].runs)]
    show(found, Console(quiet=got["printing"].quiet, json=got["printing"].json))
    if got["printing"].json:
        print(json.dumps(found))
    return 0


def _doctor(argv: list[str]) -> int:
    from jaxmodels.options import Looking, Printing

    parts: dict[str, type] = {"looking": Looking, "printing": Printing}
    got = _parse("doctor", argv, "", parts, about="What this computer has, what works on it, and how fast.")

    from jaxmodels.console import Console
    from jaxmodels.doctor import doctor, show

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    with console.busy("measuring"):
        found = doctor(speed=got["looking"].speed == "on", folder=got["looking"].folder)
    show(found, console)
    if got["printing"].json:
        print(json.dumps(found))
    return 0


def _tokenize(argv: list[str]) -> int:
    from jaxmodels.options import Printing, Tokenizing

    parts = {"tokenizing": Tokenizing, "printing": Printing}
    about = "Train a tokenizer on text files, or load one, and write their tokens for training."
    where, rest = _first("tokenize", argv, "FILES", parts, about)
    out, rest = _first("tokenize FILES", rest, "OUT", parts, about)
    got = _parse("tokenize", rest, f"{where} {out}", parts, about=about)

    from jaxmodels.console import Console
    from jaxmodels.data.tokenize import tokenize

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    facts = tokenize(where, out, **vars(got["tokenizing"]))
    console.table(
        out, ["", ""], [[name, f"{value:,}" if isinstance(value, int) else str(value)] for name, value in facts.items()]
    )
    if got["printing"].json:
        print(json.dumps({"folder": out, **facts}))
    return 0


def _convert(argv: list[str]) -> int:
    from jaxmodels.options import Printing

    parts: dict[str, type] = {"printing": Printing}
    about = (
        "Read a folder of weights, check every tensor, and write it again as safetensors that transformers loads. "
        "A path in .bin is a file of llama2.c."
    )
    folder, rest = _first("convert", argv, "FOLDER", parts, about)
    out, rest = _first("convert FOLDER", rest, "OUT", parts, about)
    got = _parse("convert", rest, f"{folder} {out}", parts, about=about)

    from jaxmodels.console import Console
    from jaxmodels.convert.load import convert

    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    parameters = convert(folder, out)
    console.say(f"{folder} → {out}: {parameters:,} parameters", "bold")
    if got["printing"].json:
        print(json.dumps({"folder": out, "parameters": parameters}))
    return 0


def _verify(argv: list[str]) -> int:
    from jaxmodels.options import Options, Printing, Verifying

    parts = {"verifying": Verifying, "running": Options, "printing": Printing}
    about = "Run an experiment twice, once killed again and again, and compare every array of every checkpoint, bit for bit."
    path, rest = _first("verify-resume", argv, "FILE", parts, about)

    from jaxmodels import verify
    from jaxmodels.console import Console

    _, got, knobs = _knobs("verify-resume", path, rest, {k: v for k, v in parts.items() if k != "running"})
    console = Console(quiet=got["printing"].quiet, json=got["printing"].json)
    outcome = verify.verify_resume(path, console=console, **vars(got["verifying"]), **knobs)
    console.say(outcome.text, "bold green" if outcome.passed else "bold red")
    if got["printing"].json:
        print(json.dumps(outcome._asdict()))
    return 0 if outcome.passed else FAILED
