"""What the server counts, as Prometheus reads it: requests, texts, tokens, and times as histograms."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

CONTENT_TYPE = CONTENT_TYPE_LATEST
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
BOUND = re.compile(r"(\w+)_le_(\d+)ms_total")  # how an engine names the count of a histogram up to a bound


class Counters:
    """The numbers of one server. engines: (name of the model, its engine) of those that generate text."""

    def __init__(self, engines: Sequence[tuple[str, Any]] = ()):
        self.registry = CollectorRegistry()
        where: dict[str, Any] = {"namespace": "jaxmodels", "registry": self.registry}
        self.requests = Counter("http_requests", "Requests by path and status.", ["path", "status"], **where)
        self.seconds = Histogram(
            "http_request_seconds", "From a request to its last byte.", ["path"], buckets=SECONDS, **where
        )
        self.inputs = Counter("inputs", "Inputs of predictions and of vectors.", ["model"], **where)
        self.registry.register(_Engines(engines))

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engines:
    """What the engines count themselves, read when it is asked for; see jaxmodels.serving.metrics."""

    def __init__(self, engines: Sequence[tuple[str, Any]]):
        self._engines = list(engines)

    def collect(self) -> Iterator[Any]:
        """A family for each name, with a value for each model."""
        found = {model: dict(engine.metrics()) for model, engine in self._engines}
        for model, values in found.items():
            found[model] = {**_histograms(values), **values}
        for name in dict.fromkeys(name for values in found.values() for name in values):
            family = None
            for model, values in found.items():
                if (value := values.get(name)) is None:
                    continue
                family = family or _family(name, value)
                if isinstance(value, _Histogram):
                    family.add_metric([model], value.buckets, value.sum)
                else:
                    family.add_metric([model], value)
            yield family

    def describe(self) -> Iterable[Any]:
        """None: the names are known when they are collected."""
        return []


class _Histogram(NamedTuple):
    buckets: list[tuple[str, float]]
    sum: float


def _family(name: str, value: Any) -> Any:
    words = name.removesuffix("_total").replace("_", " ")
    about = f"{words[0].upper()}{words[1:]} of the engine."
    if isinstance(value, _Histogram):
        return HistogramMetricFamily(f"jaxmodels_{name}", about, labels=["model"])
    kind: Any = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
    return kind(f"jaxmodels_{name}", about, labels=["model"])


def _histograms(values: dict[str, Any]) -> dict[str, Any]:
    """Takes the histograms out of an engine's values."""
    found: dict[str, Any] = {}
    for name in [*values]:
        if match := BOUND.fullmatch(name):
            bound = f"{int(match[2]) / 1000:g}"
            found.setdefault(match[1], []).append((bound, values.pop(name)))
    for name, buckets in found.items():
        buckets.append(("+Inf", values.pop(f"{name}_count_total")))
        found[name] = _Histogram(buckets, values.pop(f"{name}_sum_total"))
    return found
