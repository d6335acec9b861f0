"""The command for models that are used over HTTP: serve."""

from __future__ import annotations

from typing import Any

from jaxmodels.cli.command import CommandLine, Json, command
from jaxmodels.cli.trained import CODE
from jaxmodels.commands.serve import EngineOptions, LimitOptions, ServeOptions
from jaxmodels.console import Console
from jaxmodels.options import CheckpointOptions


@command(
    "serve",
    "RUN…",
    ServeOptions,
    EngineOptions,
    LimitOptions,
    CheckpointOptions,
    usage="RUN|FOLDER… [--port 8000]",
    note=f"{CODE} Nothing that a request says is executed or opened as a file.",
    reads=True,
)
def serve(line: CommandLine, console: Console, options: dict[str, Any]) -> Json:
    """Answer requests over HTTP, as OpenAI's clients send them, and on a page.

    Models that generate text answer /v1/completions and, with a chat template, /v1/chat/completions; others
    /predict. SIGTERM or Ctrl-C lets what runs come to its end, and ends with status 0.
    """
    from jaxmodels.commands.serve import serve

    address = ""

    def started(server: Any) -> None:
        nonlocal address
        address = server.url
        rows = [
            [served.name, ", ".join(served.abilities), facts(served)]
            for served in server.service.models.values()
        ]
        console.say()
        console.table(address, ["model", "does", ""], rows)
        console.say(f"\n{address}/", "bold")
        console.say(f"  a page to try it    {address}/")
        console.say(f"  OpenAI's clients    {address}/v1")
        console.say("  end                 Ctrl-C")

    requests = serve(line.operands, console=console, started=started, **options)
    return {"address": address, "requests": requests}


def facts(served: Any) -> str:
    """What a model reads, for people."""
    reads = {"row": f"rows of {', '.join(served.fields[:5])}" + " …" * (len(served.fields) > 5)}
    known = [reads.get(served.kind, f"reads {served.kind}s") if served.kind else ""]
    if served.engine is not None:
        known.insert(0, f"context {served.context:,} tokens")
    return ", ".join(filter(None, known))
