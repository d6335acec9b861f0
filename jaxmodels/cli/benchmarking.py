"""The command that measures: bench, and bench compare."""

from __future__ import annotations

from typing import Any

from jaxmodels.cli.command import CommandLine, Ended, command
from jaxmodels.cli.parsing import fail
from jaxmodels.commands.bench import BenchOptions
from jaxmodels.console import Console, number
from jaxmodels.launch.exit_statuses import DONE, FAILED


@command(
    "bench",
    "[NAMES…]",
    BenchOptions,
    usage="[NAMES…]",
    also={"compare A.json B.json": "ratios of two or more records, with intervals; status 1 where slower"},
    note=(
        "`jaxmodels bench compare A.json B.json` compares records: 95% intervals from the rounds, and exit "
        "status 1 where a program is slower beyond the noise."
    ),
    output=False,
    reads=True,
)
def bench(line: CommandLine, console: Console, options: dict[str, Any]) -> Ended:
    """Measure a fixed suite of models on these devices: speed, utilisation, memory and compilation."""
    from jaxmodels.commands.bench import bench

    if line.operands[:1] == ["compare"]:
        return _compare(line.operands[1:], console, options)
    options = {name: value for name, value in options.items() if name not in ("out", "tolerance")}

    def show(case: dict[str, Any]) -> None:
        for result in case["results"]:
            console.say(_sentence(result))
            for name, why in result["refused"].items():
                console.say(f"  {name}: {why}", "dim")
        if "error" in case:
            fail(f"{case['name']}: {case['error']}", FAILED)

    record = bench(line.operands, show=show, **options)
    if options["json"]:
        console.say(f"{options['json']}: {len(record['results'])} results", "bold")
    return Ended(None, FAILED if record["errors"] else DONE)


def _sentence(result: dict[str, Any]) -> str:
    """A result in two lines."""
    unit = result["unit"]
    shares = [
        f"{result[name]:.0%} {words}"
        for name, words in (
            ("mfu_of_datasheet", "MFU (data sheet)"),
            ("mfu_of_measured_product", "MFU (of the measured product)"),
            ("bandwidth_of_measured_copy", "of the copy's bandwidth"),
            ("input_wait_share", "waiting for input"),
        )
        if name in result
    ]
    return (
        f"{result['case']} {result['size']} {result['program']}: {result['of']}\n"
        f"  {number(result['median_ms'])} ms ({number(result['p5_ms'])} to {number(result['p95_ms'])}), "
        f"{number(result[f'{unit}_per_s'])} {unit}/s, compiled in {result['compile_cold_s']:.1f} s "
        f"({result['compile_cached_s']:.1f} s from the cache), {', '.join(shares)}"
    )


def _compare(paths: list[str], console: Console, options: dict[str, Any]) -> Ended:
    from jaxmodels.commands.bench import bench_compare

    names, comparisons = bench_compare(paths, out=options["out"])
    rows = [
        [one.title, names[one.record], f"{one.ratio:.3f}", f"{one.low:.3f} to {one.high:.3f}",
         "slower" if one.slower(options["tolerance"]) else ""]
        for one in comparisons
    ]  # fmt: skip
    console.table(f"times against {names[0]}", ["", "record", "ratio", "95% interval", ""], rows)
    if options["out"]:
        console.say(f"{options['out']}: open it in a browser", "bold")
    return Ended(None, FAILED if any(one.slower(options["tolerance"]) for one in comparisons) else DONE)
