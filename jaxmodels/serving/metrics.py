"""What the engine counts: requests, tokens, latencies, compilations."""

from __future__ import annotations

import threading
import weakref
from bisect import bisect_left

import jax

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds, of histograms
LATENCIES = (
    "queue_seconds",  # from submission until the prompt is begun
    "time_to_first_token_seconds",  # from submission
    "time_between_tokens_seconds",  # mean over the tokens of a piece
    "request_seconds",  # from submission to the last piece
)
COUNTERS = ("tokens_in_total", "tokens_out_total", "prefix_tokens_shared_total", "compilations_total")
FINISHES = ("stop", "length", "cancelled", "error")
_COMPILED = "/jax/core/compile/backend_compile_duration"


class Metrics:
    """Counters and histograms by name, without labels; what only rises ends in _total. Safe in threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = dict.fromkeys(COUNTERS, 0.0)
        self._values |= {f"requests_{finish}_total": 0.0 for finish in FINISHES}
        self._buckets = {name: [0] * (len(BOUNDS) + 1) for name in LATENCIES}
        self._sums = dict.fromkeys(LATENCIES, 0.0)

    def add(self, name: str, value: float = 1.0) -> None:
        """Adds to a counter."""
        with self._lock:
            self._values[name] = self._values.get(name, 0.0) + value

    def observe(self, name: str, seconds: float, times: int = 1) -> None:
        """Adds to a histogram."""
        with self._lock:
            self._buckets[name][bisect_left(BOUNDS, seconds)] += times
            self._sums[name] += seconds * times

    def mean(self, name: str) -> float:
        """The mean of a histogram; 0 without a value."""
        with self._lock:
            return self._sums[name] / max(1, sum(self._buckets[name]))

    def values(self) -> dict[str, float]:
        """All of them; of a histogram the number of values up to each bound, their sum and their number."""
        with self._lock:
            found = dict(self._values)
            for name, buckets in self._buckets.items():
                total = 0
                for bound, count in zip(BOUNDS, buckets, strict=False):
                    total += count
                    found[f"{name}_le_{1000 * bound:.0f}ms_total"] = float(total)
                found[f"{name}_sum_total"] = self._sums[name]
                found[f"{name}_count_total"] = float(total + buckets[-1])
            return found


_counting: dict[int, weakref.ref[Metrics]] = {}  # of a thread, by its number
_listening = False


def count_compilations(metrics: Metrics) -> None:
    """From now on, programs that the present thread compiles are counted."""
    global _listening
    _counting[threading.get_ident()] = weakref.ref(metrics)
    if not _listening:
        _listening = True
        jax.monitoring.register_event_duration_secs_listener(_heard)


def _heard(event: str, duration_secs: float, **_: str | int) -> None:
    reference = _counting.get(threading.get_ident())
    metrics = reference() if reference else None
    if event == _COMPILED and metrics is not None:
        metrics.add("compilations_total")
