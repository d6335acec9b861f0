"""Requests that are nearly right, as bytes: each gets a sound answer or none, and the server goes on."""

from __future__ import annotations

import json
import re
import threading

import numpy as np
import pytest

httpx = pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")
pytest.importorskip("PIL", reason="needs pillow")

from fuzz import PARTS, mutations  # noqa: E402
from serving.hosting import echo, embedder, hosted, sizer, summer  # noqa: E402
from serving.raw import answer_to  # noqa: E402

from jaxmodels.runs.png import encode_png  # noqa: E402
from jaxmodels.serving.limits import Limits  # noqa: E402

BODIES = {
    "/v1/completions": {
        **{"model": "echo", "prompt": ["ab", "c"], "max_tokens": 9, "n": 2, "stop": ["x", "y"], "seed": 5},
        **{"temperature": 0.5, "top_p": 0.9, "stream": True, "stream_options": {"include_usage": True}},
    },
    "/v1/chat/completions": {
        **{"model": "echo", "max_completion_tokens": 4, "logprobs": True},
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "me"}],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "string"}}},
    },
    "/v1/embeddings": {"model": "letters", "input": ["a", "b"], "encoding_format": "base64"},
    "/predict": {"model": "sums", "inputs": [{"a": 1.5, "b": "x"}], "draw": False},
}
PNG = encode_png(np.zeros((3, 4, 3), np.uint8))
VALUES = [None, True, -1, 0, 10**30, 1.5, 1e300, "", "x", "\ud800", "\0", [], ["x"], {}, {"a": []}, [[[1]]]]
SAID = re.compile(r"Traceback|File \"|\.py\b|Error\b")


def request(path, body, kind="application/json"):
    head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: {kind}\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


OWN = b"host: localhost\r\norigin: http://localhost\r\nconnection: close\r\n"
WHOLE = [
    *(request(path, json.dumps(body).encode()) for path, body in BODIES.items()),
    request("/predict?model=sizes&draw", PNG, "image/png"),
    b"GET /v1/models/echo HTTP/1.1\r\n" + OWN + b"\r\n",
]


def with_a_wrong_value(case):
    """A request that is sound JSON, with one value somewhere in it replaced, added or removed."""
    rng = np.random.default_rng([7, case])
    path = [*BODIES][int(rng.integers(len(BODIES)))]
    body = json.loads(json.dumps(BODIES[path]))
    inside = body
    while True:
        keys = [*inside] if isinstance(inside, dict) else [*range(len(inside))]
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(inside[key], dict | list) and inside[key] and rng.random() < 0.7:
            inside = inside[key]
            continue
        break
    if rng.random() < 0.15:
        del inside[key]
    elif rng.random() < 0.1 and isinstance(inside, dict):
        inside["another"] = 1
    else:
        inside[key] = VALUES[int(rng.integers(len(VALUES)))]
    return request(path, json.dumps(body).encode())


def check(head, body):
    """An answer: HTTP's, and where it is an error, OpenAI's object in three parts, without a trace."""
    if not head:
        return None  # what was no request, or half of one
    status = int(re.match(rb"HTTP/1\.1 (\d{3}) ", head)[1])
    assert status in (200, 400, 403, 404, 405, 408, 413, 415, 429, 499), (status, body)
    if status != 200 and b"content-type: application/json" in head:
        error = json.loads(body)["error"]
        assert set(error) == {"message", "type", "param", "code"} and not SAID.search(error["message"]), error
        assert PARTS.search(error["message"]) or "Ask" in error["message"], error
    elif status != 200:
        assert body == b"Invalid HTTP request received.", body  # of HTTP itself
    return status


@pytest.fixture(scope="module")
def server():
    limits = Limits(body=20_000, seconds=5)
    with hosted(echo(slots=8, queue=64), summer(), sizer(), embedder(), limits=limits) as server:
        yield server


def attack(server, count, threads=4):
    """Sends count damaged requests from several clients at a time; gives how often each status came."""
    statuses, faults = [], []

    def client(first):
        share = count // threads
        damaged = [[*mutations(whole, share // 12 + 1, seed=first, others=WHOLE)] for whole in WHOLE]
        for n in range(share):
            if n % 2:
                sent = with_a_wrong_value(first * share + n)
            else:
                sent = damaged[n // 2 % len(WHOLE)][n // 2 // len(WHOLE)]
            try:
                statuses.append(check(*answer_to(server.url, sent, patience=0.3)))
            except Exception as error:
                error.add_note(repr(sent[:2_000]))
                faults.append(error)
                return

    clients = [threading.Thread(target=client, args=(n,)) for n in range(threads)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    if faults:
        raise faults[0]
    return {status: statuses.count(status) for status in {*statuses}}


def still_serves(server):
    engine = server.service.models["echo"].engine
    ask = {"model": "echo", "prompt": "ab", "max_tokens": 3}
    assert httpx.post(f"{server.url}/v1/completions", json=ask).json()["choices"][0]["text"] == "aba"
    assert httpx.get(f"{server.url}/health").json() == {"status": "ok"}
    assert engine.running == 0
    paths = set(re.findall(r'http_requests_total\{path="([^"]*)"', httpx.get(f"{server.url}/metrics").text))
    assert paths <= {*BODIES, "/v1/models/{name:path}", "/metrics", "/health", "other"}


def test_whole_requests_are_answered(server):
    statuses = [check(*answer_to(server.url, whole)) for whole in WHOLE]
    assert statuses == [200] * len(WHOLE)


@pytest.mark.parametrize(
    "count", [400, pytest.param(10_000, marks=pytest.mark.thorough)], ids=lambda count: f"{count}"
)
def test_damaged_requests_are_answered_in_words_and_the_server_goes_on(server, count, capfd):
    statuses = attack(server, count)
    still_serves(server)
    assert statuses[200] and statuses[400] > count / 4, statuses
    assert sum(statuses.values()) == count // 4 * 4
    assert "Traceback" not in capfd.readouterr().err
    print(statuses)
