"""What train and sweep print at their end."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxmodels.cli.command import in_company
from jaxmodels.console import Console, duration, number

PREDICTED = {"image": "FILES", "sound": "FILES", "text": "--text '…'", "row": "rows.csv"}
SHOWN = 20  # settings in a sweep's table


def show_run(file: Any, folder: Path, result: Any, words: Sequence[str], console: Console) -> None:
    """A run's metrics and speed, a sample of a language model, and the commands that come next.

    words: those of the command after the file. Writes the sample into the folder.
    """
    from jaxmodels.commands.generate import sample
    from jaxmodels.runs import experiment_file
    from jaxmodels.runs.checkpoint import Checkpoints
    from jaxmodels.runs.files import write_text
    from jaxmodels.runs.knobs import read_knobs
    from jaxmodels.training.profile import viewers

    if result.metrics:
        console.say()
        _show_metrics(result.metrics, result.summary["baselines"], console)
    console.say("\n" + ", ".join(_facts(result.summary)))
    if (best := Checkpoints(folder / "checkpoints").best()) not in (None, result.summary["steps"]):
        console.say(
            f"The commands below take the checkpoint of step {best:,}, the best; --step takes another"
        )
    if in_company():  # the parameters may be spread over all processes
        console.say(f"\n{folder}", "bold")
        console.say("  go on    the same command, given to all processes")
        console.say(f"  evaluate {shlex.join(['jaxmodels', 'evaluate', str(folder)])}")
        return
    experiment = file.build(experiment_file.make_config(file, read_knobs(folder).knobs))
    if experiment.decoder is not None and not console.quiet:
        [text] = sample(experiment, result.state, tokens=300)
        write_text(folder / "sample.txt", text.with_prompt)
        console.say(f"\nA sample after {text.prompt!r}", "bold")
        console.say(text.with_prompt)
    console.say(f"\n{folder}", "bold")
    again = [word for word in words if word not in ("--fresh", "--force")]
    console.say(f"  go on    {shlex.join(['jaxmodels', 'train', str(file.path), *again])}")
    console.say(f"  evaluate {shlex.join(['jaxmodels', 'evaluate', str(folder)])}")
    if experiment.predictor is not None:
        inputs = PREDICTED[experiment.predictor.input]
        console.say(f"  predict  {shlex.join(['jaxmodels', 'predict', str(folder)])} {inputs}")
    console.say(f"  look     {shlex.join(['jaxmodels', 'report', str(folder)])}")
    for command in viewers(folder):
        console.say(f"  trace    {command}")
    if experiment.decoder is not None:
        generate = ["jaxmodels", "generate", str(folder), "--prompt", experiment.decoder.prompt]
        console.say(f"  sample   {shlex.join(generate)}")


def _show_metrics(
    metrics: dict[str, float], baselines: dict[str, dict[str, float]], console: Console
) -> None:
    rows = []
    for name, value in metrics.items():
        beside = [number(baseline[name]) if name in baseline else "" for baseline in baselines.values()]
        rows.append([name, number(value), *beside])
    console.table("Result", ["", "this run", *baselines], rows)


def _facts(summary: dict[str, Any]) -> list[str]:
    """Steps, speed, time and skipped batches."""
    facts = [f"{summary['steps']:,} steps"]
    if stopped := summary.get("stopped"):
        facts[0] += f", stopped early: {stopped['why']}"
    if summary["examples_per_s"]:
        facts.append(f"{summary['examples_per_s']:,.0f} examples/s")
        facts.append(f"{duration(summary['wall_s'])} in all")
        facts.append(f"{summary['compile_s']:.0f} s of it compiling")
    if summary["skipped"]:
        facts.append(f"{summary['skipped']} batches skipped as not finite")
    return facts


def show_sweep(table: dict[str, Any], console: Console) -> None:
    """A sweep's settings, its verdict, and the command that takes out the best member."""
    metric, settings = table["metric"], table["settings"]
    console.say()
    title = f"{metric}, mean and 95% interval"
    if len(settings) > SHOWN:
        title += f"; {len(settings) - SHOWN} more settings in result.json"
    console.table(title, ["", metric, "seeds", "p", ""], [_row(setting) for setting in settings[:SHOWN]])
    console.say(f"\n{table['verdict']}")
    time = f"{len(table['members'])} members in {duration(table['wall_s'])}"
    if table["compile_s"] == table["compile_s"]:  # jobs compile for themselves: nan
        time += f", {table['compile_s']:.0f} s of it compiling"
    console.say(f"\n{time}")
    console.say(f"\n{table['folder']}", "bold")
    measured = [member for member in table["members"] if member["metrics"]]
    if measured:
        sign = -1 if table["goal"] == "max" else 1
        best = min(measured, key=lambda member: sign * member["metrics"][metric])["name"]
        words = ["jaxmodels", "sweep", table["folder"], "--take", best, "--folder", f"runs/{best}"]
        console.say(f"  take one out   {shlex.join(words)}")
    sys.stdout.flush()


def _row(setting: dict[str, Any]) -> list[str]:
    """knobs, metric, number of seeds, p, and how members ended early."""
    mean = number(setting["mean"])
    if setting["interval"] is not None:
        mean += f" ± {number(setting['interval'])}"
    p = "" if setting["p"] is None else f"{setting['p']:.2g}"
    end = f"stopped at {setting['stopped']:,}" if setting["stopped"] else ""
    if setting["diverged"]:
        end = f"{setting['diverged']} diverged"
    name = " ".join(f"{knob}={value}" for knob, value in setting["knobs"].items()) or "all"
    return [name, mean, str(len(setting["values"])), "best" if setting["best"] else p, end]
