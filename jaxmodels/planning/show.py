"""A plan for a person to read."""

from __future__ import annotations

from typing import Any

from jaxmodels.console import Console, duration
from jaxmodels.planning.roofline import REACHED, exchange_s

LEAST_SENT = 1024  # bytes from which on an exchange is shown


def show(plan: dict[str, Any], console: Console) -> None:
    """Prints a plan."""
    if "search" in plan:
        _search(plan["search"], console)
    if "mesh" not in plan:
        console.say("No choice that was compiled fits; take more devices, or a smaller batch.", "bold red")
        return
    forecast, memory = plan["forecast"], plan.get("memory", {})
    mesh = ",".join(f"{name}={size}" for name, size in plan["mesh"].items())
    console.say(f"{plan['machine']}, mesh {mesh}", "bold")
    facts = [
        ["parameters", f"{forecast['parameters']:,}"],
        ["model FLOPs of a step", count(forecast["model_flops"])],
        ["FLOPs with rematerialization", count(forecast["hardware_flops"])],
        ["checkpoint", size(forecast["checkpoint_bytes"])],
    ]
    console.table("The experiment", ["", ""], facts)
    _memory(forecast, memory, console)
    _exchanges(plan, console)
    _speed(plan, console)
    if "command" in plan:
        console.say(f"\n{plan['command']}", "bold")
    for note in memory.get("notes", []):
        console.warn(note)
    if loops := plan["work"]["loops"]:
        console.warn(f"loops with an unknown number of trips, which were counted once: {loops}")


def _search(search: dict[str, Any], console: Console) -> None:
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
        for row in search["rows"]
    ]
    columns = ["mesh", "remat", "micro-batches", "a step", "memory", "MFU", ""]
    console.table(f"The best of {search['considered']:,} choices, and why others are not", columns, rows)


def _memory(forecast: dict[str, Any], memory: dict[str, Any], console: Console) -> None:
    parts = dict(forecast.get("device_bytes", {}))
    if not parts:
        if "error" in memory:
            console.warn(f"it does not compile: {memory['error']}")
        return
    available, used = parts.pop("there"), parts.pop("used")
    rows = [[name, size(n)] for name, n in parts.items()]
    of_available = f" of {size(available)} ({used / available:.0%})" if available else ""
    rows.append(["total", size(used) + of_available])
    source = f"by {memory['compiler']}" if memory["own"] else "an estimate by XLA's layout for CPUs"
    console.table(f"Memory of a device, {source}", ["", ""], rows)
    if forecast["fits"] is False:
        console.say("It does not fit.", "bold red")


def _exchanges(plan: dict[str, Any], console: Console) -> None:
    rows = []
    for collective in sorted(plan["collectives"], key=lambda c: -c["bytes"]):
        if collective["bytes"] >= LEAST_SENT:
            name = f"{collective['kind']} over {', '.join(collective['axes'])}"
            took = seconds(exchange_s(collective)) if collective["rate"] else ""
            sent = size(collective["bytes"])
            rows.append([name, f"{collective['times']:,}", sent, collective["name"], took])
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
        floor = "a floor: kernel launches alone, measured on another chip; a real step may be slower"
        rows.append(["", floor])
    rows.append(["model FLOPs utilization", f"{forecast['mfu']:.1%}"])
    rows += [[f"{name} per second", f"{forecast[f'{name}_per_s']:,.0f}"] for name in plan["examples"]]
    if forecast["bubble"]:
        rows.append(["pipeline bubble", f"{forecast['bubble']:.1%}"])
    cost = f"{duration(forecast['run_s'])}, {forecast['device_hours']:,.0f} chip-hours"
    rows.append([f"the run of {plan['steps']:,} steps", cost])
    rows.append(["input to be read", f"{size(forecast['input_bytes_per_s'])}/s"])
    console.table(f"Forecast, with products at {REACHED:.0%} of the peak", ["", ""], rows)


def count(n: float) -> str:
    """A large number with an SI prefix."""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if n < 1000:
            return f"{n:,.4g} {prefix}".strip()
        n /= 1000
    return f"{n:,.4g} Z"


def size(n: float) -> str:
    """A number of bytes."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:,.4g} {unit}"
        n /= 1024
    return f"{n:,.2f} TiB"


def seconds(t: float) -> str:
    """A short time."""
    return f"{t:.3g} s" if t >= 1 else f"{t * 1e3:.3g} ms" if t >= 1e-3 else f"{t * 1e6:.3g} µs"
