"""Continuous batching: each request gets the text that it gets alone; nothing compiles after the start."""

from __future__ import annotations

import time

import numpy as np
import pytest
from instances import first
from serving.language import LENGTH, alone, joined, model, request

from jaxmodels.decoding import generate
from jaxmodels.decoding.adapters import with_adapters
from jaxmodels.paths import by_path
from jaxmodels.serving.engine import Engine
from jaxmodels.serving.prefixes import Prefixes
from jaxmodels.serving.programs import Plan, programs
from jaxmodels.serving.request import Full
from jaxmodels.tasks.lora import merge

OPTIONS = (
    {"temperature": 0.0},
    {"temperature": 1.0},
    {"temperature": 0.9, "top_k": 9, "top_p": 0.95, "min_p": 0.01, "repetition_penalty": 1.3},
)


def started(name: str, **options) -> Engine:
    decoder, params = model(name)
    engine = Engine(decoder, params, {}, **{"slots": 4, "chunk": 8, "burst": 3, **options})
    engine.start()
    return engine


@pytest.fixture(scope="module")
def gpt():
    engine = started("gpt")
    yield engine
    engine.close(drain=False, timeout=10)
    assert engine.metrics()["compilations_total"] == 0


def prompt_of(random, low: int = 9, high: int = 17) -> str:
    """Of lengths for which generate has one program."""
    return "".join(random.choice(list("abcdefghij "), random.integers(low, high)))


def check_arrivals(engine: Engine, name: str, count: int, options) -> None:
    """Requests at random times, some of them cancelled, each against generate."""
    random = np.random.default_rng(0)
    streams = []
    for n in range(count):
        asked = request(
            prompt_of(random),
            tokens=int(random.integers(1, 32)),
            seed=int(random.integers(2**40)),
            stop=["ab", "c"] if n % 3 == 2 else (),
            **options[n % len(options)],
        )
        streams.append((asked, engine.submit(asked)))
        if n % 4 == 3:
            streams[-1][1].cancel()
        time.sleep(float(random.exponential(0.004)))
    for n, (asked, stream) in enumerate(streams):
        pieces = list(stream)
        got, expected = joined(pieces), alone(name, asked)
        if n % 4 == 3:  # cancelled: as far as it came
            assert pieces[-1].finish in ("cancelled", "stop", "length")
            if pieces[-1].finish == "cancelled":
                expected = tuple(x[: len(y)] for x, y in zip(expected, got, strict=True))
        assert got[:2] == expected[:2]
        np.testing.assert_allclose(got[2], expected[2], atol=1e-3)


def test_a_text_is_the_one_that_it_is_alone_whatever_runs_beside_it(gpt):
    check_arrivals(gpt, "gpt", 12, OPTIONS)


@pytest.mark.parametrize("name", first(1, ["lstm", "llama", "moe"]))
def test_so_it_is_with_grouped_heads_with_experts_and_with_a_recurrent_state(name):
    engine = started(name)
    check_arrivals(engine, name, 6, OPTIONS[1:2])
    engine.close(drain=True, timeout=10)
    assert engine.metrics()["compilations_total"] == 0


def test_a_text_ends_where_the_context_is_full(gpt):
    asked = request("abcdefghij", tokens=200, temperature=1.0, seed=4)
    pieces = list(gpt.submit(asked))
    assert pieces[-1].finish == "length"
    assert joined(pieces)[1] == alone("gpt", asked)[1]
    assert len(joined(pieces)[1]) == LENGTH - 10 + 1


def test_a_long_prompt_is_read_in_chunks_between_which_others_go_on(gpt, monkeypatch):
    order = []
    for name in ("read", "burst"):
        method = getattr(gpt._device, name)

        def noted(*a, method=method, name=name):
            order.append(name)
            return method(*a)

        monkeypatch.setattr(gpt._device, name, noted)
    other = gpt.submit(request("jihgfedcba", tokens=38, temperature=1.0, seed=1))
    other.get(10)
    long = request("bcdefghija" * 4, tokens=2, temperature=0.0)
    order.clear()
    assert joined(list(gpt.submit(long)))[1] == alone("gpt", long)[1]
    list(other)
    assert "".join(name[0] for name in order).lstrip("b").startswith("rbrbrbrbr")


def test_equal_beginnings_of_prompts_are_read_once(gpt):
    beginning = "hgfedcba" * 2
    texts = [request(beginning + rest, tokens=5, temperature=0.0) for rest in ("abc", "bca", "")]
    before = gpt.metrics()["prefix_tokens_shared_total"]
    shared = []
    for asked in texts:
        assert joined(list(gpt.submit(asked)))[1] == alone("gpt", asked)[1]
        shared.append(gpt.metrics()["prefix_tokens_shared_total"] - before)
    # Of the last prompt the last token is read, and so the chunk with it.
    assert shared == [0, 16, 16 + 8]


def test_beginnings_leave_least_recently_used_first_and_the_longest_before_those_they_need():
    store, block = Prefixes(2, 3 * 80), np.zeros(10)
    for prompt in ([1, 2, 3, 4], [1, 2, 5, 6]):
        for key in store.keys(prompt, 0):
            store.add(key, block)
    assert [len(store.match([*p, 9], 0)) for p in ([1, 2, 3, 4], [1, 2, 5, 6])] == [2, 2]
    for key in store.keys([7, 8], 0):
        store.add(key, block)
    assert store.used == 3 * 80
    assert [len(store.match([*p, 9], 0)) for p in ([1, 2, 3, 4], [1, 2, 5, 6], [7, 8])] == [1, 2, 1]
    assert store.match([1, 2, 9], adapter=1) == []  # another adapter computes something else


def test_cancelled_texts_free_their_slots(gpt):
    streams = [gpt.submit(request("abcdefghij", tokens=39, temperature=1.0, seed=n)) for n in range(3)]
    last = gpt.submit(request("abcdefghij", tokens=2, temperature=0.0))
    for stream in streams:
        stream.cancel()
    assert {list(stream)[-1].finish for stream in streams} <= {"cancelled", "stop", "length"}
    assert list(last)[-1].finish == "length"
    assert gpt.metrics()["requests_cancelled_total"] >= 1


def test_a_closed_engine_finishes_what_runs_and_refuses_the_rest():
    engine = started("gpt")
    asked = [request("abcdefghij" + c, tokens=20, temperature=1.0, seed=2) for c in "abcde"]
    streams = [engine.submit(x) for x in asked]
    engine.close(drain=True, timeout=60)
    assert [joined(list(s))[1] for s in streams] == [alone("gpt", x)[1] for x in asked]
    with pytest.raises(Full, match="closed"):
        engine.submit(asked[0])


def test_without_draining_texts_end_at_once():
    engine = started("gpt")
    stream = engine.submit(request("abcdefghij", tokens=39, temperature=1.0, seed=1))
    engine.close(drain=False, timeout=60)
    assert list(stream)[-1].finish in ("cancelled", "length", "stop")


def test_a_full_queue_says_when_to_come_again():
    engine = Engine(*model("gpt"), {}, slots=3, chunk=8, burst=3, queue=1)  # not started
    engine.submit(request("a"))
    with pytest.raises(Full, match="1 requests wait") as error:
        engine.submit(request("a"))
    assert error.value.retry_after >= 1


def test_after_a_failure_inside_the_engine_goes_on():
    warned = []
    engine = Engine(*model("gpt"), {}, slots=3, chunk=8, burst=3, warn=warned.append)
    engine.start()
    burst, failing = engine._device.burst, [True]

    def sometimes(active, steps):
        if failing.pop() if failing else False:
            raise RuntimeError("out of memory")
        return burst(active, steps)

    engine._device.burst = sometimes
    assert list(engine.submit(request("abcdefghij", tokens=9)))[-1].finish == "error"
    asked = request("abcdefghij", tokens=9, temperature=0.0)
    assert joined(list(engine.submit(asked)))[1] == alone("gpt", asked)[1]
    engine.close(drain=True, timeout=10)
    assert "out of memory" in warned[0]


def test_a_text_that_cannot_be_decoded_ends_alone():
    decoder, params = model("gpt")

    def decode(tokens) -> str:
        if len(tokens) > 20:
            raise KeyError("no such token")
        return decoder.decode(tokens)

    warned = []
    engine = Engine(
        decoder._replace(decode=decode), params, {}, slots=3, chunk=8, burst=3, warn=warned.append
    )
    engine._device._programs = programs(Plan((decoder,), 0, 3))  # compiled already
    engine.start()
    long, short = (engine.submit(request("abcdefghij", tokens=n, temperature=0.0)) for n in (15, 7))
    assert [list(stream)[-1].finish for stream in (long, short)] == ["error", "length"]
    engine.close(drain=True, timeout=10)
    assert len(warned) == 1 and "no such token" in warned[0]


def test_closing_an_engine_that_never_started_ends_what_waits():
    engine = Engine(*model("gpt"), {}, slots=3, chunk=8, burst=3)
    stream = engine.submit(request("a"))
    engine.close()
    assert list(stream)[-1].finish == "cancelled"


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (request(""), "got a prompt without a token; expected one"),
        (request("a" * LENGTH), "got a prompt of 48 tokens; expected fewer than 48"),
        (request("a")._replace(tokens=(99,)), "got token 99; expected tokens from 0 to"),
        (request("a", stop=[""]), "got an empty stop string"),
        (request("a", adapter="none"), "got adapter 'none'; expected one of: none"),
        (request("a", temperature=-1.0), "--temperature: got -1.0; expected 0 or more"),
        (request("a", seed=2**70), "seed: got"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_what_can_never_run_is_refused(gpt, asked, text):
    with pytest.raises(ValueError, match=text):
        gpt.submit(asked)


def test_the_numbers_add_up(gpt):
    before = gpt.metrics()
    pieces = list(gpt.submit(request("abcdefghij", tokens=7, temperature=1.0, seed=9)))
    after = gpt.metrics()
    assert after["tokens_in_total"] - before["tokens_in_total"] == 10
    assert after["tokens_out_total"] - before["tokens_out_total"] == len(joined(pieces)[1])
    finish = f"requests_{pieces[-1].finish}_total"
    assert after[finish] - before[finish] == 1
    assert (
        after["time_to_first_token_seconds_count_total"]
        == before["time_to_first_token_seconds_count_total"] + 1
    )
    assert (
        after["time_to_first_token_seconds_le_60000ms_total"]
        >= after["time_to_first_token_seconds_le_5ms_total"]
    )


def test_each_text_is_of_its_own_adapter_and_beginnings_are_not_shared_between_them():
    decoder, params = model("gpt")
    leaves, random = by_path(params), np.random.default_rng(0)
    adapters = {
        name: {
            path: {
                "a": random.normal(size=(*leaves[path].shape[:-1], 2)).astype(np.float32),
                "b": random.normal(size=(*leaves[path].shape[:-2], 2, leaves[path].shape[-1])).astype(
                    np.float32
                ),
            }
            for path in ("blocks/qkv/kernel", "blocks/down/kernel")
        }
        for name in ("one", "two")
    }
    wrapped, together, names = with_adapters(decoder, params, adapters)
    engine = Engine(wrapped, together, {}, slots=3, chunk=8, burst=3, adapters=names)
    engine.start()
    asked = [
        request("abcdefghijab", adapter=name, tokens=20, temperature=0.7, seed=3) for name in (None, *names)
    ]
    streams = [engine.submit(x) for x in asked]
    for x, stream in zip(asked, streams, strict=True):
        own = params if x.adapter is None else merge(params, adapters[x.adapter], 1.0)
        expected = generate(decoder, own, {}, ["abcdefghijab"], **x.options._asdict())[0]
        assert joined(list(stream))[1] == expected.tokens
    engine.close(drain=True, timeout=10)
    assert engine.metrics()["compilations_total"] == 0
