"""A plan for a person to read."""

from __future__ import annotations

from typing import Any

from jaxmodels.console import Console, duration
from jaxmodels.planning.roofline import REACHED, exchange_s


def show(plan: dict[str, Any], console: Console) -> None:
    """Prints it."""
    if "search" in plan:
        _search(plan["search"], console)
    if "mesh" not in plan:
        console.say("Nothing that was tried fits; take more devices, or a smaller batch.", "bold red")
        return
    forecast, memory = plan["forecast"], plan.get("memory", {})
    mesh = ",".join(f"{name}={size}" for name, size in plan["mesh"].items())
    console.say(f"{plan['machine']}, mesh {mesh}", "bold")
    facts = [["parameters", f"{forecast['parameters']:,}"]]
    facts += [["model FLOPs of a step", count(forecast["model_flops"])]]
    facts += [["FLOPs with what is computed again", count(forecast["hardware_flops"])]]
    facts += [["checkpoint", size(forecast["checkpoint_bytes"])]]
    console.table("The experiment", ["", ""], facts)
    _memory(forecast, memory, console)
    _exchanges(plan, console)
    _speed(plan, console)
    if "command" in plan:
        console.say(f"\n{plan['command']}", "bold")
    for note in memory.get("notes", []):
        console.warn(note)
    if plan["work"]["loops"]:
        console.warn(f"loops that run as often as their data says were counted once: {plan['work']['loops']}")


def _search(found: dict[str, Any], console: Console) -> None:
    rows = [
        [
            row["mesh"],
            row["remat"],
            str(row["accumulate"]),
            "" if row["step_s"] is None else seconds(row["step_s"]),
            "" if row["bytes"] is None else size(row["bytes"]),
            "" if row["mfu"] is None else f"{row['mfu']:.1%}",
            row["why"],
        ]
        for row in found["rows"]
    ]
    columns = ["mesh", "remat", "micro-batches", "a step", "memory", "MFU", ""]
    console.table(f"The best of {found['considered']:,} ways, and what others lost by", columns, rows)


def _memory(forecast: dict[str, Any], memory: dict[str, Any], console: Console) -> None:
    parts = dict(forecast.get("device_bytes", {}))
    if not parts:
        if "error" in memory:
            console.warn(f"it does not compile: {memory['error']}")
        return
    there, used = parts.pop("there"), parts.pop("used")
    rows = [[name, size(n)] for name, n in parts.items()]
    rows += [["in all", size(used) + (f" of {size(there)} ({used / there:.0%})" if there else "")]]
    own = f"as {memory['compiler']} has it" if memory["own"] else "an estimate: as XLA lays it out for CPUs"
    console.table(f"Memory of a device, {own}", ["", ""], rows)
    if forecast["fits"] is False:
        console.say("It does not fit.", "bold red")


def _exchanges(plan: dict[str, Any], console: Console) -> None:
    rows = [
        [
            f"{c['kind']} over {', '.join(c['axes'])}",
            f"{c['times']:,}",
            size(c["bytes"]),
            c["name"],
            seconds(exchange_s(c)) if c["rate"] else "",
        ]
        for c in sorted(plan["collectives"], key=lambda c: -c["bytes"])
        if c["bytes"] >= 1024
    ]
    if rows:
        console.table("What a device sends in a step", ["", "times", "bytes", "over", "takes"], rows)


def _speed(plan: dict[str, Any], console: Console) -> None:
    forecast = plan["forecast"]
    if forecast["step_s"] is None:
        console.say("No speed is forecast for simulated devices.", "dim")
        return
    terms = ", ".join(f"{name} {seconds(t)}" for name, t in forecast["terms_s"].items())
    rows = [["a step", f"{seconds(forecast['step_s'])}, bound by {forecast['bound']} ({terms})"]]
    if forecast["bound"] == "latency":
        rows += [
            [
                "",
                "a floor: launches of kernels alone, measured on another chip; what is really reached may be slower",
            ]
        ]
    rows += [["model FLOPs utilisation", f"{forecast['mfu']:.1%}"]]
    rows += [[f"{name} per second", f"{forecast[f'{name}_per_s']:,.0f}"] for name in plan["examples"]]
    if forecast["bubble"]:
        rows += [["pipeline bubble", f"{forecast['bubble']:.1%}"]]
    rows += [
        [
            f"the run of {plan['steps']:,} steps",
            f"{duration(forecast['run_s'])}, {forecast['device_hours']:,.0f} chip-hours",
        ]
    ]
    rows += [["input to be read", f"{size(forecast['input_bytes_per_s'])}/s"]]
    console.table(f"Forecast, with products at {REACHED:.0%} of the peak", ["", ""], rows)


def count(n: float) -> str:
    """A large number with its prefix."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if n < 1000:
            return f"{n:,.4g} {prefix}".strip()
        n /= 1000
    return f"{n:,.4g} Z"


def size(n: float) -> str:
    """Bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:,.4g} {unit}"
        n /= 1024
    return f"{n:,.2f} TiB"


def seconds(t: float) -> str:
    """Of a step."""
    return f"{t:.3g} s" if t >= 1 else f"{t * 1e3:.3g} ms" if t >= 1e-3 else f"{t * 1e6:.3g} µs"
