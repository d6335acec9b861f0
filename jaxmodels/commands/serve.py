"""jaxmodels serve: trained models answer requests over HTTP, as OpenAI's clients ask, and on a page."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxmodels.console import Console
from jaxmodels.options import CheckpointOptions

if TYPE_CHECKING:
    from jaxmodels.inference.model import Model
    from jaxmodels.serving.served import Served
    from jaxmodels.serving.server import Server

KEY = "JAXMODELS_API_KEY"  # a variable of the environment


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Where the server listens, and to whom."""

    port: int = 8000
    """The port; 0 takes any that is free."""
    host: str = "127.0.0.1"
    """The address to listen to. Another than this computer's own needs a key."""
    api_key: str = ""
    """The key that requests must bring, by default the environment's JAXMODELS_API_KEY, if any.
    Other users of this computer can see it in the list of processes, but not in the environment."""
    chat_template: str = ""
    """A file with the chat template, for models whose folder has none."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How texts are written."""

    slots: int = 8
    """Texts that a model writes at the same time."""
    context: int = 0
    """Tokens of a prompt with its text; 0 takes the model's length, at most 2,048."""
    adapter: tuple[str, ...] = ()
    """LoRA adapters of the one folder that is served, each as NAME=FOLDER of PEFT.
    A request that names NAME as its model is written with it; all share the folder's weights."""
    lookup: int = 0
    """Tokens that each step drafts from the text itself, which is faster where texts repeat."""
    draft: str = ""
    """A run or a folder of weights of a smaller model with the same tokens, which drafts."""
    draft_tokens: int = 4
    """Tokens that the draft model writes for each step."""


@dataclass(frozen=True, kw_only=True)
class LimitOptions:
    """What one request may ask for, at most."""

    max_tokens: int = 1024
    """New tokens of a text."""
    max_prompt: int = 0
    """Tokens of a prompt; 0 leaves it to the model's context."""
    max_queue: int = 64
    """Requests that wait; one more is refused with 429 and Retry-After."""
    max_body: float = 16.0
    """MiB of a request."""
    max_seconds: float = 120.0
    """Seconds of a request; a text whose time is up ends as if its tokens were used up."""
    drain: float = 30.0
    """Seconds in which what runs may come to its end after SIGTERM or Ctrl-C."""


def serve(
    sources: str | Path | Sequence[str | Path],
    *,
    port: int = ServeOptions.port,
    host: str = ServeOptions.host,
    api_key: str = ServeOptions.api_key,
    chat_template: str = ServeOptions.chat_template,
    slots: int = EngineOptions.slots,
    context: int = EngineOptions.context,
    adapter: Sequence[str] = EngineOptions.adapter,
    lookup: int = EngineOptions.lookup,
    draft: str | Path = EngineOptions.draft,
    draft_tokens: int = EngineOptions.draft_tokens,
    max_tokens: int = LimitOptions.max_tokens,
    max_prompt: int = LimitOptions.max_prompt,
    max_queue: int = LimitOptions.max_queue,
    max_body: float = LimitOptions.max_body,
    max_seconds: float = LimitOptions.max_seconds,
    drain: float = LimitOptions.drain,
    step: int = CheckpointOptions.step,
    mesh: str = CheckpointOptions.mesh,
    precision: str = CheckpointOptions.precision,
    console: Console | None = None,
    started: Callable[[Server], Any] = lambda server: None,
) -> int:
    """Serves models of runs and of folders of weights until SIGTERM or Ctrl-C; gives the number of requests.

    A model has the name of its folder. started(server) is called when requests are taken: server.url is the
    address, and server.end() ends it as a signal does, from any thread.
    """
    from jaxmodels.inference.load import load as load_model
    from jaxmodels.serving.drafts import Draft
    from jaxmodels.serving.limits import Limits

    given = [sources] if isinstance(sources, str | Path) else list(sources)
    console = console or Console(quiet=True)
    names = _names(given)
    adapters = _adapters(names, adapter)
    least: dict[str, tuple[float, float]] = {
        "slots": (slots, 1),
        "context": (context, 0),
        "lookup": (lookup, 0),
    }
    least |= {"draft-tokens": (draft_tokens, 1), "max-tokens": (max_tokens, 1), "max-prompt": (max_prompt, 0)}
    least |= {"max-queue": (max_queue, 1), "drain": (drain, 0)}
    _check(least, {"max-body": max_body, "max-seconds": max_seconds})
    body = int(max_body * 2**20)
    limits = Limits(body, max_tokens, max_prompt, max_queue, max_seconds)
    limits = limits._replace(choices=min(limits.choices, max_queue))  # more could never wait together
    key = _key(api_key or os.environ.get(KEY, ""))
    try:
        from jaxmodels.serving import server as serving
    except ModuleNotFoundError as error:
        if error.name not in ("uvicorn", "starlette", "prometheus_client", "python_multipart"):
            raise
        raise ImportError(f"serve needs {error.name}; pip install 'jaxmodels[serve]'") from error
    listening = serving.listen(host, port)
    with listening:
        if not key and not serving.is_loopback(listening.getsockname()[0]):
            raise ValueError(
                f"--host: got {host} and no key; expected one, as whoever reaches this computer could use "
                f"its models. Give {KEY} in the environment, or leave --host out"
            )
        load = partial(load_model, mesh=mesh, precision=precision, warn=console.warn)
        engine: dict[str, Any] = {"slots": slots, "queue": max_queue, "capacity": context or None}
        engine |= {"lookup": lookup, "warn": console.warn}
        if draft:
            small = load(draft)
            engine["draft"] = Draft(small.require_decoder(), small.params, small.extra, draft_tokens)
        models: list[Served] = []
        for source, name in zip(given, names, strict=True):
            with console.busy(f"loading {source} and compiling its programs"):
                model = load(source, step=step, adapters=adapters)
                models += _served(model, name, engine, chat_template)
        server = serving.Server(models, listening, limits=limits, slots=slots, key=key, drain=drain)
        server.run(lambda: started(server))
    return server.requests


def _served(model: Model, name: str, options: dict[str, Any], chat_template: str) -> list[Served]:
    """A model, ready to answer, and each of its adapters. options: of its engine, if it generates text."""
    from jaxmodels.serving.chat_template import find
    from jaxmodels.serving.engine import Engine
    from jaxmodels.serving.served import Served

    if model.decoder is None:
        model.require_predictor()
        return [Served(name, model)]
    template = find(model.source, given=chat_template)  # what is wrong with it is said before compiling
    if model.adapters:
        options = {**options, "adapters": model.adapters}
    engine = Engine(model.decoder, model.params, model.extra, **options)
    engine.start()
    base = Served(name, model, engine, template)
    return [base, *(base.with_adapter(adapter) for adapter in model.adapters)]


def _names(sources: Sequence[str | Path]) -> list[str]:
    """The models' names in requests, which must differ."""
    from jaxmodels.serving.served import name_of

    names = [name_of(source) for source in sources]
    if not names:
        raise ValueError("serve: got no model; expected one at least. Give a run or a folder of weights")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(
            f"serve: got two models called {repeated[0]}; expected different names, which are those of their "
            "folders. Rename one of the folders"
        )
    return names


def _adapters(names: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """The folders of adapters by their names."""
    adapters: dict[str, str] = {}
    for word in given:
        name, _, folder = word.partition("=")
        if not name or not folder or name in adapters or name in names or len(names) > 1:
            raise ValueError(
                f"--adapter: got {word!r} for the models {', '.join(names)}; expected NAME=FOLDER with "
                "another name each time, and one model. Change --adapter"
            )
        adapters[name] = folder
    return adapters


def _check(least: Mapping[str, tuple[float, float]], above_0: Mapping[str, float]) -> None:
    """Raises ValueError for an option below its least value, or one that is not above 0."""
    for option, (value, low) in least.items():
        if value < low:
            raise ValueError(f"--{option}: got {value}; expected at least {low}. Change --{option}")
    for option, size in above_0.items():
        if not 0 < size < float("inf"):
            raise ValueError(f"--{option}: got {size}; expected more than 0. Change --{option}")


def _key(key: str) -> str:
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError(
            "--api-key: got a key with a space or a letter beyond ASCII, which no header carries; expected "
            f"letters, digits and signs. Change --api-key, or {KEY}"
        )
    return key
