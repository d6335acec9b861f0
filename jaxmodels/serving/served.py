"""A model that is served: its name, what it does, and the thread or the engine that does it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from jaxmodels.inference.model import Answer, Model
from jaxmodels.interfaces import Decoder
from jaxmodels.serving.chat_template import ChatTemplate

LETTERS = 16  # of a prompt for each token of the context: more are refused before they are encoded
ABILITIES = {
    "completions": "/v1/completions",
    "chat": "/v1/chat/completions",
    "embeddings": "/v1/embeddings",
    "transcriptions": "/v1/audio/transcriptions",
    "predict": "/predict",
}


class Served:
    """A model with its engine, where it generates text, and a thread of its own for predictions."""

    def __init__(
        self,
        name: str,
        model: Model,
        engine: Any = None,
        template: ChatTemplate | None = None,
        adapter: str | None = None,
    ):
        """adapter: of the engine, which this name stands for; the base and its adapters share an engine."""
        self.name, self.model, self.engine, self.template = name, model, engine, template
        self.adapter = adapter
        self.created = int(time.time())
        self.base = ""  # the model's name, where this is one of its adapters
        self.vocabulary = 0 if engine is None else _vocabulary(model)
        self.waiting = 0  # calls of submit that have not ended
        self._counting = threading.Lock()
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"predict {name}")
        self.embeds = model.predictor is not None and self.kind == "text" and _embeds(model)

    def with_adapter(self, name: str) -> Served:
        """The same model with one of its adapters, whose name it gets."""
        found = Served(name, self.model, self.engine, self.template, name)
        found.base = self.name
        return found

    @property
    def kind(self) -> str:
        """What an input of /predict is; "" where the model does not predict."""
        return "" if self.model.predictor is None else self.model.predictor.input

    @property
    def context(self) -> int:
        """The most tokens of a prompt with its text; 0 where the model generates none."""
        return 0 if self.engine is None else self.engine.capacity

    @property
    def fields(self) -> tuple[str, ...]:
        """The columns of a row that /predict reads."""
        return () if self.model.predictor is None else self.model.predictor.fields

    @property
    def abilities(self) -> list[str]:
        """What the model does: see ABILITIES."""
        has = {
            "completions": self.engine is not None,
            "chat": self.engine is not None and self.template is not None,
            "embeddings": self.embeds,
            "transcriptions": self.model.transcriber is not None,
            "predict": self.model.predictor is not None,
        }
        return [name for name in ABILITIES if has[name]]

    @property
    def decoder(self) -> Decoder:
        """The decoder of a model that generates text."""
        return self.model.require_decoder()

    @property
    def transcriber(self) -> Any:
        """What writes what is said in a recording, of a model that does."""
        return self.model.transcriber

    def submit(self, inputs: Sequence[Any]) -> Any:
        """The answers to inputs, as a future: one call after another, each with all its inputs together."""
        return self.run(self._answers, list(inputs))

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """What a function gives, as a future: one call after another, in the model's own thread."""
        with self._counting:
            self.waiting += 1
        future = self._worker.submit(function, *arguments)
        future.add_done_callback(self._ended)
        return future

    def close(self) -> None:
        """Ends the thread of predictions, after what it does now."""
        self._worker.shutdown(wait=True, cancel_futures=True)

    def _ended(self, future: Any) -> None:
        with self._counting:
            self.waiting -= 1

    def _answers(self, inputs: list[Any]) -> list[Answer]:
        return self.model(inputs)


def _vocabulary(model: Model) -> int:
    """How many tokens the model knows, by the shape of its logits."""
    decoder = model.require_decoder()
    tokens_BT, count_B = jnp.zeros((1, 1), jnp.int32), jnp.ones(1, jnp.int32)
    logits_BV, _ = jax.eval_shape(
        lambda params, extra: decoder.read(params, extra, tokens_BT, count_B, 2), model.params, model.extra
    )
    return logits_BV.shape[-1]


def _embeds(model: Model) -> bool:
    """Whether a text is answered by a vector; this compiles the program of short texts, too."""
    [answer] = model(["A text."])
    return isinstance(answer.values.get("embedding"), list | tuple)


def name_of(source: str | Path) -> str:
    """The name of a run or a folder of weights in requests: the last part of its path."""
    path = Path(source).resolve()
    return path.stem if path.suffix == ".bin" else path.name
