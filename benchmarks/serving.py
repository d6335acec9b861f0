"""Requests that arrive at random: continuous batching, one request at a time, and transformers' own.

A Llama of 6 layers x 384 with a vocabulary of 8,192 and random weights, in float32; prompts of 16 to 96
random tokens, texts of 48 greedy ones. The same weights, written as a Hugging Face folder, run in
transformers' continuous batching (PyTorch on the CPU, attention by sdpa), with the same prompts and as many
requests at once. Each contender has a process of its own; one works at a time. In interleaved rounds: all
requests come at once; each comes when the one before it has its text ("one at a time"; "one slot" is an
engine that has no other). Then they come at the times of a Poisson process and do not wait for answers: times
to the first token and between tokens, where a piece of several tokens counts as if they had come evenly.
"""

from __future__ import annotations

import argparse
import importlib.util
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import measure
import numpy as np

from jaxmodels.convert.save import save_pretrained
from jaxmodels.decoding.sample import SamplingOptions
from jaxmodels.models.llama import Llama
from jaxmodels.serving.engine import Engine
from jaxmodels.serving.request import Request
from jaxmodels.tasks.language import decoder

VOCABULARY = 8192
Deliver = Callable[[int, int], None]  # (request, tokens that came)


class Workload(NamedTuple):
    """Prompts, the tokens that each gets, and requests at once."""

    prompts: list[list[int]]
    tokens: int
    slots: int


class Ours:
    """The engine with so many slots; called with arrival times, it delivers and returns the texts."""

    def __init__(self, model: Llama, params: Any, work: Workload, slots: int):
        made = decoder(model, encode=lambda text: [0], decode=lambda tokens: "a" * len(tokens))
        self.engine = Engine(made, params, {}, slots=slots, queue=10_000, prefixes=0)
        self.engine.start()
        self._work = work

    def __call__(self, times: list[float], deliver: Deliver) -> list[list[int]]:
        options = SamplingOptions(tokens=self._work.tokens, temperature=0.0)
        texts: list[list[int]] = [[] for _ in times]

        def follow(n: int, stream: Any) -> None:
            for piece in stream:
                deliver(n, len(piece.tokens))
                texts[n] += piece.tokens

        threads = []
        for n in arriving(times):
            stream = self.engine.submit(Request(tuple(self._work.prompts[n]), options))
            threads.append(threading.Thread(target=follow, args=(n, stream)))
            threads[-1].start()
        for thread in threads:
            thread.join()
        return texts

    def alone(self, n: int) -> list[int]:
        """The text of one request."""
        options = SamplingOptions(tokens=self._work.tokens, temperature=0.0)
        stream = self.engine.submit(Request(tuple(self._work.prompts[n]), options))
        return [token for piece in stream for token in piece.tokens]

    def close(self) -> None:
        self.engine.close(drain=False, timeout=10)


class Transformers:
    """transformers' ContinuousBatchingManager on the same weights."""

    def __init__(self, folder: str, work: Workload):
        import torch
        import transformers

        torch.set_num_threads(2)
        torch.set_flush_denormal(True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="sdpa", dtype=torch.float32
        )
        # No token ends a text, as in the engine's.
        generation = transformers.GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        batching = transformers.ContinuousBatchingConfig(
            max_batch_tokens=256, num_blocks=work.slots * 16, page_size=32, max_requests_per_batch=work.slots
        )
        self._manager = model.init_continuous_batching(
            generation_config=generation, continuous_batching_config=batching
        )
        self._manager.start()
        self._work, self._asked = work, 0

    def __call__(self, times: list[float], deliver: Deliver) -> list[list[int]]:
        names: dict[str, int] = {}
        base, self._asked = self._asked, self._asked + len(times)
        texts: list[list[int]] = [[] for _ in times]

        def follow() -> None:
            left = len(times)
            while left:
                result = self._manager.get_result(timeout=60)
                if result is None:
                    raise RuntimeError("transformers: no token within a minute")
                n = names[result.request_id]
                deliver(n, len(result.generated_tokens) - len(texts[n]))
                texts[n] = list(result.generated_tokens)
                left -= result.is_finished()

        for n in range(len(times)):
            names[f"request-{base + n}"] = n
        follower = threading.Thread(target=follow)
        follower.start()
        for n in arriving(times):
            self._manager.add_request(
                self._work.prompts[n],
                request_id=f"request-{base + n}",
                max_new_tokens=self._work.tokens,
                streaming=True,
            )
        follower.join()
        return texts

    def close(self) -> None:
        self._manager.stop(block=True)


def arriving(times: list[float]) -> Iterator[int]:
    """Each request's number when its time has come."""
    begun = time.perf_counter()
    for n, at in enumerate(times):
        time.sleep(max(0.0, begun + at - time.perf_counter()))
        yield n


class Apart:
    """A contender in a process of its own, which does what is asked of it: a function of the contender."""

    def __init__(self, make: Callable[..., Any], *arguments: Any):
        spawn = multiprocessing.get_context("spawn")
        self._pipe, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_answer, args=(theirs, make, arguments), daemon=True)
        self._process.start()
        theirs.close()

    def ask(self, function: Callable[..., Any], *arguments: Any) -> Any:
        self._pipe.send((function, arguments))
        return self._pipe.recv()

    def close(self) -> None:
        self.ask(_close)
        self._process.join()


def _answer(pipe: Any, make: Callable[..., Any], arguments: Any) -> None:
    contender = make(*arguments)
    function = None
    while function is not _close:
        function, arguments = pipe.recv()
        pipe.send(function(contender, *arguments))


def _close(contender: Any) -> None:
    contender.close()


def texts_of(contender: Any, count: int) -> list[list[int]]:
    """The texts of all requests."""
    return contender([0.0] * count, lambda n, tokens: None)


def at_once(contender: Any, count: int) -> float:
    """Seconds per token where all requests come together."""
    begun = time.perf_counter()
    texts = texts_of(contender, count)
    return (time.perf_counter() - begun) / sum(map(len, texts))


def one_by_one(contender: Any, count: int) -> float:
    """Seconds per token where each request comes when the one before it has its text."""
    begun = time.perf_counter()
    tokens = sum(len(contender.alone(n)) for n in range(count))
    return (time.perf_counter() - begun) / tokens


def open_loop(contender: Any, times: list[float]) -> dict[str, Any]:
    """Tokens per second, and percentiles of the times to the first token and between tokens, in ms."""
    first: dict[int, float] = {}
    last: dict[int, float] = {}
    gaps: list[float] = []
    begun = time.perf_counter()

    def deliver(n: int, tokens: int) -> None:
        now = time.perf_counter() - begun
        if not tokens:
            return
        if n in last:
            gaps.extend([(now - last[n]) / tokens] * tokens)
        else:
            first[n] = now - times[n]
        last[n] = now

    with measure.Watch() as watch:
        texts = contender(times, deliver)
        seconds = time.perf_counter() - begun
    return {
        "tokens_per_s": float(f"{sum(map(len, texts)) / seconds:.4g}"),
        "first_token_ms": percentiles([*first.values()]),
        "between_tokens_ms": percentiles(gaps),
        "foreign": measure.spread([watch.foreign]) if watch.foreign is not None else None,
    }


def percentiles(seconds: list[float]) -> dict[str, float]:
    return {f"p{p}": float(f"{1e3 * np.percentile(seconds, p):.4g}") for p in (50, 99)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few and short texts of a tiny model")
    parser.add_argument("--rate", type=float, action="append", help="requests per second; may be repeated")
    parser.add_argument("--requests", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="store_true", help="without transformers")
    options = parser.parse_args()
    quick = options.quick
    width, depth, heads, length = (32, 1, 2, 64) if quick else (384, 6, 6, 256)
    rates = options.rate or ([20.0] if quick else [1.0, 2.0, 4.0])
    count, tokens, longest = (4, 6, 16) if quick else (options.requests, 48, 96)
    random = np.random.default_rng(0)
    lengths = random.integers(longest // 6, longest + 1, count)
    work = Workload([random.integers(0, VOCABULARY, n).tolist() for n in lengths], tokens, 8)
    model = Llama(
        vocabulary=VOCABULARY,
        length=length,
        width=width,
        depth=depth,
        heads=heads,
        key_heads=heads,
        hidden_width=1024,
    )
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    contenders = {
        "batched": Apart(Ours, model, jax.device_get(params), work, work.slots),
        "one slot": Apart(Ours, model, jax.device_get(params), work, 1),
    }
    with tempfile.TemporaryDirectory() as folder:
        if not options.only and all(map(importlib.util.find_spec, ("torch", "transformers"))):
            save_pretrained(folder, model, params)
            contenders["transformers"] = Apart(Transformers, folder, work)
        texts = {name: contender.ask(texts_of, count) for name, contender in contenders.items()}

    same = {
        name: float(np.mean([a == b for a, b in zip(texts["batched"], found, strict=True)]))
        for name, found in texts.items()
    }
    cases = {name: partial(contender.ask, at_once, count) for name, contender in contenders.items()}
    cases["one at a time"] = partial(contenders["batched"].ask, one_by_one, count)
    rounds = measure.interleaved(cases, 1 if quick else options.rounds, 1 if quick else 2)
    results: dict[str, Any] = {
        "at once": {
            "tokens_per_s": {name: measure.per_second(found) for name, found in rounds.items()},
            "same_texts": same,
            "foreign": measure.foreign(rounds),
        }
    }
    ratios = {
        name: measure.ratio(found, rounds["batched"]) for name, found in rounds.items() if name != "batched"
    }
    results["at once"]["ratio"] = ratios
    for rate in rates:
        times = np.cumsum(random.exponential(1 / rate, count)).tolist()
        for name, contender in contenders.items():
            found = results[f"{name}, {rate:g} requests/s"] = contender.ask(open_loop, times)
            measure.note(f"  {name}, {rate:g} requests/s: {found}")
    for contender in contenders.values():
        contender.close()

    def check(name: str, value: float, **limit: float) -> dict[str, Any]:
        """Of a quick run nothing is required."""
        if quick:
            limit = {kind: 1e9 if kind == "most" else 0.0 for kind in limit}
        return measure.check(name, value, **limit)

    checks = [
        check("same texts as with one slot", same["one slot"], least=0.95),
        check("throughput over one at a time", ratios["one at a time"]["median"], least=3.0),
    ]
    if "transformers" in contenders:
        checks.append(check("throughput over transformers", ratios["transformers"]["median"], least=1.0))
        for rate in rates:
            for what in ("first_token_ms", "between_tokens_ms"):
                ours, theirs = (
                    results[f"{name}, {rate:g} requests/s"][what]["p99"]
                    for name in ("batched", "transformers")
                )
                name = f"p99 of {what} over transformers', {rate:g} requests/s"
                checks.append(check(name, float(f"{ours / theirs:.4g}"), most=1.0))
    measure.report("serving", quick, results, checks)


if __name__ == "__main__":
    main()
