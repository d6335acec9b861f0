"""Whom the server answers, what a request may be, and what comes back where it is refused."""

from __future__ import annotations

import json
import re
import socket
import threading
import time

import pytest

httpx = pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")

from serving.hosting import echo, embedder, hosted, summer  # noqa: E402
from serving.raw import answer_to  # noqa: E402

from jaxmodels.serving import connection  # noqa: E402
from jaxmodels.serving.guard import is_loopback, name_in  # noqa: E402
from jaxmodels.serving.limits import Limits  # noqa: E402


@pytest.fixture(scope="module")
def server():
    with hosted(echo(), summer(), embedder(), limits=Limits(body=5_000)) as server:
        yield server


ASK = {"model": "echo", "prompt": "ab", "max_tokens": 2}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "localhost:1234"}, 200),  # a port may be forwarded
        ({"host": "[::1]:8000"}, 200),
        ({"host": "attacker.example"}, 403),  # a name that points to 127.0.0.1
        ({"host": "127.0.0.1.attacker.example"}, 403),
        ({"host": "localhost:80@attacker.example"}, 403),
        ({"host": ""}, 403),
        ({"origin": "https://attacker.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),  # another server of this computer
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"content-type": "text/plain"}, 415),  # what a page may send without asking
        ({"content-type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_pages_of_others_are_refused(server, headers, status):
    said = httpx.post(f"{server.url}/v1/completions", json=ASK, headers=headers)
    assert said.status_code == status, said.text
    assert "access-control-allow-origin" not in said.headers
    if status != 200:
        assert set(said.json()["error"]) == {"message", "type", "param", "code"}


def test_the_servers_own_page_is_answered_and_may_ask_nobody_else(server):
    headers = {"origin": server.url, "sec-fetch-site": "same-origin"}
    assert httpx.post(f"{server.url}/v1/completions", json=ASK, headers=headers).status_code == 200
    page = httpx.get(f"{server.url}/", headers={"sec-fetch-site": "cross-site"})  # a link leads here
    policy = page.headers["content-security-policy"]
    assert page.status_code == 200 and "default-src 'none'" in policy and "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy and page.headers["x-content-type-options"] == "nosniff"
    assert httpx.options(f"{server.url}/v1/completions", headers={"origin": server.url}).status_code == 405


def test_a_server_with_a_key_answers_those_who_bring_it():
    with hosted(echo(), key="sesame") as server:
        url = f"{server.url}/v1/models"
        wrong = ("Bearer wrong", "Bearer sesam", "Bearer", "sesame", "Basic sesame", "Bearer sesamé".encode())
        for given in (None, *wrong):
            said = httpx.get(url, headers={"authorization": given} if given else {})
            assert said.status_code == 401 and said.json()["error"]["code"] == "invalid_api_key"
            assert "sesame" not in said.text
        assert httpx.get(url, headers={"authorization": "Bearer sesame"}).status_code == 200
        assert httpx.get(f"{server.url}/metrics").status_code == 401
        assert [httpx.get(f"{server.url}{path}").status_code for path in ("/health", "/", "/page.js")] == [
            200
        ] * 3


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in chunks"])
def test_a_body_beyond_the_limit_is_refused(server, chunked):
    content = json.dumps({**ASK, "prompt": "x" * 6_000}).encode()
    said = httpx.post(
        f"{server.url}/v1/completions",
        content=iter([content[:4_000], content[4_000:]]) if chunked else content,
        headers={"content-type": "application/json"},
    )
    assert said.status_code == 413 and "at most 5,000 bytes" in said.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "no JSON"),
        (b"[1]", "expected a JSON object"),
        (b'{"model": "echo", "model": "echo"}', "a key twice"),
        (b'{"temperature": NaN}', "NaN is no number"),
        (b"\xff", "no JSON"),
        (b"[" * 4_000, "no JSON|nested too deeply"),
        (b'{"n": ' + b"9" * 4_900 + b"}", "no JSON|very large"),
        (b'{"model": "echo", "prompt": "\\ud800"}', "half a surrogate pair"),
        (b'{"model": "\\ud800", "prompt": "x"}', "half a surrogate pair"),
        (b'{"model": "echo", "prompt": "x", "\\ud800": 1}', "not supported here"),
        (b'{"model": {}, "prompt": "x"}', "expected a string"),
        (b'{"model": "echo", "prompt": "x", "seed": 1e400}', "a whole number|no JSON"),
    ],
)
def test_a_body_that_is_no_sound_json_is_refused_with_the_reason(server, body, said):
    headers = {"content-type": "application/json"}
    answer = httpx.post(f"{server.url}/v1/completions", content=body, headers=headers)
    assert answer.status_code in (400, 404)
    assert re.search(said, answer.json()["error"]["message"])


def test_paths_and_methods_that_there_are_not_are_said_as_json(server):
    for method, path, status in (
        ("GET", "/v1/nothing", 404),
        ("GET", "/page.py", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404),
        ("GET", "/v1/models/..%2f..%2fetc%2fpasswd", 404),
        ("PUT", "/predict", 405),
        ("GET", "/v1/completions", 405),
    ):
        head, body = answer_to(
            server.url, f"{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode()
        )
        assert f" {status} ".encode() in head, (path, head)
        assert json.loads(body)["error"]["message"]


def test_a_fault_inside_is_said_without_its_trace_and_the_server_goes_on(server, capsys):
    model = server.service.models["sums"].model
    object.__setattr__(model, "predictor", model.predictor._replace(report=lambda x: 1 / 0))
    said = httpx.post(f"{server.url}/predict", json={"model": "sums", "inputs": [{"a": 1, "b": ""}]})
    assert (said.status_code, said.json()["error"]["type"]) == (500, "server_error")
    assert "ZeroDivision" not in said.text
    _until(lambda: "ZeroDivisionError" in capsys.readouterr().err)  # the log, after the answer
    assert httpx.post(f"{server.url}/v1/completions", json=ASK).status_code == 200


def test_where_the_queue_is_full_a_request_is_told_when_to_come_back():
    hold = threading.Event()
    with hosted(echo(slots=1, queue=1, hold=hold), limits=Limits(queue=1)) as server:
        said = httpx.post(f"{server.url}/v1/completions", json={**ASK, "n": 3})
        assert (said.status_code, said.headers["retry-after"]) == (429, "2")
        engine = server.service.models["echo"].engine
        _until(lambda: engine.running == 0)  # none of the three is left
        hold.set()
        assert httpx.post(f"{server.url}/v1/completions", json=ASK).status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_hangs_up_frees_its_slots(stream):
    hold = threading.Event()
    with hosted(echo(slots=4, hold=hold)) as server:
        engine = server.service.models["echo"].engine
        body = json.dumps({**ASK, "n": 3, "stream": stream}).encode()
        host, port = server.url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
            _until(lambda: engine.running == 3)
        _until(lambda: engine.running == 0)
        assert engine.cancelled == 3


@pytest.mark.parametrize("sent", [b"", b"GET /health HT", b"GET /health HTTP/1.1\r\nhost: localhost\r\n"])
def test_a_connection_that_sends_no_whole_head_is_closed_in_time(server, monkeypatch, sent):
    monkeypatch.setattr(connection, "SECONDS", 0.1)
    with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=5) as opened:
        opened.sendall(sent)
        assert opened.recv(1) == b""
    with httpx.Client() as client:  # one that sends its heads is kept, also for the next request
        for _ in range(2):
            assert client.get(f"{server.url}/health").status_code == 200
            time.sleep(0.15)


@pytest.mark.parametrize("free", [0, 3])
def test_a_text_whose_time_is_up_ends_and_one_that_did_not_begin_is_refused(free):
    hold = threading.Event()
    with hosted(echo(hold=hold, free=free), limits=Limits(seconds=0.5)) as server:
        said = httpx.post(f"{server.url}/v1/completions", json={**ASK, "max_tokens": 5})
        if free:
            assert said.json()["choices"][0]["text"] == "aba"
            assert said.json()["choices"][0]["finish_reason"] == "length"
        else:
            assert (said.status_code, said.json()["error"]["code"]) == (503, "timeout")
        _until(lambda: server.service.models["echo"].engine.running == 0)


def test_the_end_lets_what_runs_finish_and_refuses_the_rest():
    hold = threading.Event()
    found = {}
    with hosted(echo(hold=hold)) as server:
        url = server.url
        asking = threading.Thread(
            target=lambda: found.update(httpx.post(f"{url}/v1/completions", json=ASK).json())
        )
        asking.start()
        _until(lambda: server.service.models["echo"].engine.running == 1)
        server.end()
        _until(lambda: httpx.get(f"{url}/health").status_code == 503)
        said = httpx.post(f"{url}/v1/completions", json=ASK)
        assert said.status_code == 503 and int(said.headers["retry-after"]) > 0
        assert httpx.get(f"{url}/metrics").status_code == 200
        hold.set()
        asking.join(5)
    assert found["choices"][0]["text"] == "ab"
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_names_of_this_computer_are_told_from_others():
    assert all(map(is_loopback, ("localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "10.0.0.1", "localhost.example", "2130706433", "::")))
    assert [name_in(x) for x in ("a:1", "[::1]:80", "[::1]", "a:b", "[::1]x", "")] == [
        *("a", "::1", "::1", "", "", ""),
    ]


def _until(holds, seconds=10):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
