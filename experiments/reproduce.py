"""Trains the experiments one after another, compares each result with its target, and writes docs/results.md.

    python experiments/reproduce.py                              all that state a target
    python experiments/reproduce.py --only digits_mlp,etth1_dlinear --jobs 2
    python experiments/reproduce.py --quick                      three steps of each, nothing is written
    python experiments/reproduce.py --table                      only the page, from experiments/results.json

Runs are in runs/reproduce/: finished ones are not repeated, interrupted ones go on (--fresh begins anew).
Where data, weights or a package are absent, an experiment is left out, with the reason. Results are kept in
experiments/results.json, the newest of each; one that was measured before the last commit that changed a
model, layer, task or data source that its experiment imports is marked on the page.
"""

from __future__ import annotations

import argparse
import ast
import concurrent.futures
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from jaxmodels import Target

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
RESULTS, PAGE, RUNS = FOLDER / "results.json", ROOT / "docs" / "results.md", Path("runs") / "reproduce"
BEGIN, END = "<!-- made by experiments/reproduce.py -->", "<!-- until here -->"
PARTS = ("models", "layers", "tasks", "data")  # of the package: what a result depends on
QUICK = 3  # steps
MARK = "†"


class Outcome(NamedTuple):
    """Of one experiment: its entry for results.json, or why there is none."""

    name: str
    entry: dict[str, Any] | None
    reason: str = ""


def experiments() -> list[Path]:
    """The files that build an experiment."""
    return sorted(path for path in FOLDER.glob("*.py") if "\ndef build(" in path.read_text())


def sources(path: Path) -> list[Path]:
    """The files of models, layers, tasks and data that an experiment imports, directly or not."""
    found: set[Path] = set()
    waiting = [path]
    while waiting:
        for module in _imports(waiting.pop()):
            whole = ROOT.joinpath(*module.split("."))
            file = next((f for f in (whole.with_suffix(".py"), whole / "__init__.py") if f.is_file()), None)
            inside = module.split(".")[:2]
            if file and file not in found and inside[0] == "jaxmodels" and inside[-1] in PARTS:
                found.add(file)
                waiting.append(file)
    return sorted(found)


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def train(path: Path, folder: Path, *, quick: bool, fresh: bool) -> Outcome:
    """One run of `jaxmodels train`, which goes on where the folder's run stopped."""
    name = path.stem
    command = [sys.executable, "-m", "jaxmodels", "train", str(path), "--folder", str(folder)]
    command += ["--stop-at", str(QUICK)] if quick else []
    command += ["--fresh"] if fresh else []
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        return Outcome(name, None, lines[-1][:200] if lines else f"status {done.returncode}")
    return Outcome(name, None) if quick else entry(name, folder)


def entry(name: str, folder: Path) -> Outcome:
    """What a finished run came to."""
    file = folder / "result.json"
    result = json.loads(file.read_text()) if file.is_file() else {}
    if result.get("exit") != "complete":
        return Outcome(name, None, "the run is not complete; give the same command again")
    target = target_of(FOLDER / f"{name}.py")
    if target is None:
        return Outcome(name, None, "the experiment states no target")
    key = f"{target.split}/{target.metric}"
    if key not in result["metrics"]:
        known = ", ".join(sorted(result["metrics"]))
        return Outcome(
            name, None, f"got no {key} in the result; expected one of {known}. Mend Experiment.target"
        )
    return Outcome(
        name,
        {
            "result": result["metrics"][key],
            "minutes": round(result["wall_s"] / 60, 1),
            "machine": machine(),
            "commit": _git("describe", "--always", "--dirty", "--abbrev=7"),
        },
    )


def target_of(path: Path) -> Target | None:
    """Experiment.target of a file as it is; None where it has none or cannot be built here."""
    from jaxmodels.runs import experiment_file

    file = experiment_file.load(path)
    try:
        return file.build(experiment_file.make_config(file, {})).target
    except (OSError, ImportError):
        return None


def machine() -> str:
    """The processor and its cores, or the accelerator."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    return f"{os.cpu_count()} cores of {cpu}"


def changed_since(commit: str, files: list[Path]) -> bool | None:
    """Whether a commit after this one changed one of the files; None where git does not know the commit."""
    if not commit or not files:
        return None
    commit = commit.removesuffix("-dirty")
    names = [str(file.relative_to(ROOT)) for file in files]
    found = _git("log", "--format=%h", "-1", f"{commit}..HEAD", "--", *names)
    return None if found is None else bool(found)


def _git(*words: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


def margin(target: Target, result: float) -> float:
    """By how much a result is better than the target; negative where it falls short."""
    return result - target.value if target.direction == "higher" else target.value - result


def row(command: str, of: dict[str, Any], older: bool | None) -> str:
    """A line of the table."""
    goal = beyond = ""
    if of.get("target"):
        target = Target(**of["target"])
        sign = "at least" if target.direction == "higher" else "at most"
        source = f" ({target.source})" if target.source else ""
        goal = f"{target.split}/{target.metric} {sign} {target.value:g}{source}"
        if of.get("result") is not None:
            beyond = f"{margin(target, of['result']) + 0.0:+.3g}"
    result = "" if of.get("result") is None else f"{of['result']:.5g}"
    minutes = "" if of.get("minutes") is None else f"{of['minutes']:g}"
    commit = (of.get("commit") or "not recorded") + MARK * bool(older)
    said = "; ".join(part for part in (result, of.get("note", "")) if part)
    return f"| `{command}` | {goal} | {said} | {beyond} | {minutes} | {of.get('machine', '')} | {commit} |"


def table(entries: dict[str, dict[str, Any]]) -> str:
    """The table of all results, by command."""
    lines = [
        BEGIN,
        "| `jaxmodels train experiments/…` | target | result | margin | minutes | machine | commit |",
        "|---|---|---|---|---|---|---|",
    ]
    for command, of in sorted(entries.items()):
        path = FOLDER / command.removeprefix("python experiments/").split()[0]
        older = changed_since(of.get("commit", ""), sources(path)) if path.is_file() else None
        lines.append(row(command, of, older))
    lines += [
        "",
        f"{MARK}: a model, layer, task or data source that the experiment imports has changed since, if only "
        "in words.",
        "",
        END,
    ]
    return "\n".join(lines)


def write_page(entries: dict[str, dict[str, Any]]) -> None:
    """Puts the table into its place on the page."""
    text = PAGE.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise ValueError(
            f"{PAGE}: got no lines {BEGIN} and {END}; expected both. Put them where the table goes"
        )
    PAGE.write_text(before + table(entries) + after)


def store(outcome: Outcome) -> None:
    """Keeps an entry at once, so that an interruption loses none."""
    if outcome.entry is None:
        return
    entries = json.loads(RESULTS.read_text())
    target = target_of(FOLDER / f"{outcome.name}.py")
    kept = {"target": target and asdict(target), **outcome.entry}
    entries[f"{outcome.name}.py"] = kept
    RESULTS.write_text(_lines(entries))


def _lines(entries: dict[str, Any]) -> str:
    rows = [
        f"  {json.dumps(k, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}"
        for k, v in sorted(entries.items())
    ]
    return "{\n" + ",\n".join(rows) + "\n}\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="names of files without .py, with commas")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK} steps of each; nothing is written")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side; results are for --jobs 1")
    parser.add_argument("--fresh", action="store_true", help="begin anew where there is a run already")
    parser.add_argument("--table", action="store_true", help="only make the page anew")
    wanted = parser.parse_args()
    names = {path.stem: path for path in experiments()}
    chosen = [name for name in wanted.only.split(",") if name] or list(names)
    if unknown := [name for name in chosen if name not in names]:
        parser.error(
            f"--only: got {', '.join(unknown)}; expected some of {', '.join(names)}. Check the names"
        )
    if not wanted.only and not wanted.quick:
        chosen = [name for name in chosen if target_of(names[name]) is not None]
    failed = 0
    if not wanted.table:
        with (
            tempfile.TemporaryDirectory() as scratch,
            concurrent.futures.ThreadPoolExecutor(wanted.jobs) as pool,
        ):
            at = Path(scratch) if wanted.quick else ROOT / RUNS
            jobs = [
                pool.submit(train, names[name], at / name, quick=wanted.quick, fresh=wanted.fresh)
                for name in chosen
            ]
            for job in concurrent.futures.as_completed(jobs):
                outcome = job.result()
                store(outcome)
                failed += bool(outcome.reason)
                print(
                    f"{outcome.name}: {outcome.reason or (outcome.entry or {}).get('result', 'trains')}",
                    flush=True,
                )
    if not wanted.quick:
        write_page(json.loads(RESULTS.read_text()))
    print(f"{len(chosen) - failed} of {len(chosen)}")
    return 1 if wanted.only and failed else 0


if __name__ == "__main__":
    sys.exit(main())
