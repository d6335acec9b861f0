"""What the server counts, as Prometheus reads it: requests, texts, tokens, and times as histograms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
GAPS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Counters:
    """The numbers of one server. engines: (name of the model, its engine) of those that generate text."""

    def __init__(self, engines: Sequence[tuple[str, Any]] = ()):
        self.registry = CollectorRegistry()
        where: dict[str, Any] = {"namespace": "jaxmodels", "registry": self.registry}
        self.requests = Counter("requests", "Requests by path and status", ["path", "status"], **where)
        self.request = Histogram("request_seconds", "Time of a request", ["path"], buckets=SECONDS, **where)
        self.first = Histogram(
            "time_to_first_token_seconds", "From a request to its text", ["model"], buckets=SECONDS, **where
        )
        self.gap = Histogram(
            "time_between_tokens_seconds",
            "Between a text's pieces, divided by their tokens",
            ["model"],
            buckets=GAPS,
            **where,
        )
        self.tokens = Counter("tokens", "Tokens of prompts and of texts", ["model", "kind"], **where)
        self.inputs = Counter("inputs", "Inputs of predictions", ["model"], **where)
        self.registry.register(_Engines(engines))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engines:
    """Numbers that an engine keeps itself, read when they are asked for."""

    def __init__(self, engines: Sequence[tuple[str, Any]]):
        self._engines = list(engines)

    def collect(self) -> Iterator[Any]:
        """A family for each name that engines give a number; what only rises ends in _total there."""
        found: dict[str, list[tuple[str, float]]] = {}
        for model, engine in self._engines:
            for name, value in _numbers(engine.metrics()):
                found.setdefault(name, []).append((model, value))
        for name, values in found.items():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family: Any = kind(f"jaxmodels_engine_{name}", f"{name} of the engine", labels=["model"])
            for model, value in values:
                family.add_metric([model], value)
            yield family

    def describe(self) -> Iterable[Any]:
        """None: the names are known when they are collected."""
        return []


def _numbers(metrics: dict[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in metrics.items():
        if isinstance(value, int | float):
            yield name, float(value)
