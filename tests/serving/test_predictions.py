"""/predict with rows, texts, images and sounds, and the numbers of /metrics."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest

httpx = pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")
Image = pytest.importorskip("PIL.Image", reason="needs pillow")
pytest.importorskip("soundfile", reason="needs soundfile")

from serving.hosting import echo, embedder, hosted, listener, sizer, summer  # noqa: E402

from jaxmodels.data.formats.audio import wav  # noqa: E402
from jaxmodels.runs.png import encode_png  # noqa: E402
from jaxmodels.serving.limits import Limits  # noqa: E402

PIXELS = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3)
PNG, WAV = encode_png(PIXELS), wav(np.zeros(800, np.float32), 8_000)


@pytest.fixture(scope="module")
def server():
    with hosted(summer(), sizer(), listener(), embedder(), echo(), limits=Limits(inputs=3)) as server:
        yield server


@pytest.fixture
def ask(server):
    def post(model, *inputs, **more):
        return httpx.post(f"{server.url}/predict", json={"model": model, "inputs": inputs, **more})

    return post


def base64_of(content):
    return base64.b64encode(content).decode()


def test_rows_are_answered_in_order_and_one_that_fails_says_why(ask):
    said = ask("sums", {"a": 1, "b": "xx"}, {"b": "x"}, {"a": -2.5, "b": ""}).json()
    assert said["model"] == "sums"
    first, second, third = said["predictions"]
    assert (first, third) == ({"sum": 3.0}, {"sum": -2.5})
    assert "got a row without" in second["error"]


def test_where_no_input_can_be_used_the_request_is_refused(ask):
    said = ask("sums", {"b": "x"})
    assert said.status_code == 400 and said.json()["error"]["param"] == "inputs[0]"


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_an_image_comes_as_base64_or_as_the_body(server, ask, prefix):
    values = {"width": 5.0, "height": 7.0}
    assert ask("sizes", prefix + base64_of(PNG)).json()["predictions"] == [values]
    for kind in ("image/png", "application/octet-stream"):
        headers = {"content-type": kind}
        said = httpx.post(f"{server.url}/predict?model=sizes", content=PNG, headers=headers)
        assert said.json()["predictions"] == [values]


def test_an_answer_is_drawn_where_one_asks_for_it(server, ask):
    [values] = ask("sizes", base64_of(PNG), draw=True).json()["predictions"]
    [same] = httpx.post(
        f"{server.url}/predict?model=sizes&draw", content=PNG, headers={"content-type": "image/png"}
    ).json()["predictions"]
    assert same == values
    picture = base64.b64decode(values["picture"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(picture)) as image:
        np.testing.assert_array_equal(np.asarray(image), PIXELS[::-1])


def test_a_sound_is_heard_and_a_text_is_read(ask):
    assert ask("seconds", base64_of(WAV)).json()["predictions"] == [{"seconds": pytest.approx(0.1)}]
    assert ask("letters", "ab").json()["predictions"] == [{"embedding": [97.0, 98.0, *[32.0] * 6]}]


@pytest.mark.parametrize(
    ("model", "given", "said"),
    [
        ("sizes", "/etc/passwd", "in base64, not its name"),
        ("sizes", "https://example.org/x.png", "in base64, not its name"),
        ("sizes", "data:image/png,abc", "a data: URL in base64"),
        (
            "sizes",
            base64_of(b"no image"),
            "cannot identify image file what was sent; expected one of JPEG, PNG",
        ),
        ("seconds", base64_of(PNG), "got no sound"),
        ("sizes", {"path": "x.png"}, "expected a string"),
        ("sums", ["a", 1], "an object with the values of a row"),
        ("sums", {"a": {"b": 1}}, "a number, a text, true, false or null"),
        ("sums", {"a": 10**400, "b": ""}, "as models compute in float32"),
        ("sums", {"a": -1e39, "b": ""}, "as models compute in float32"),
        ("letters", 5, "expected a string"),
        ("letters", "x" * 200_001, "at most 200,000"),
        ("echo", "x", "does completions, chat"),
    ],
)
def test_an_input_of_another_kind_is_refused_and_nothing_is_opened(ask, model, given, said):
    answer = ask(model, given)
    assert answer.status_code == 400 and said in answer.json()["error"]["message"]


def test_more_inputs_than_the_limit_are_refused(ask):
    assert "1 to 3 inputs" in ask("sums", *[{"a": 1, "b": ""}] * 4).json()["error"]["message"]


def test_bytes_for_a_model_that_reads_rows_are_refused(server):
    said = httpx.post(f"{server.url}/predict?model=sums", content=PNG, headers={"content-type": "image/png"})
    assert said.status_code == 415 and 'Send {"inputs": [...]}' in said.json()["error"]["message"]
    said = httpx.post(
        f"{server.url}/predict?model=sizes&path=x", content=PNG, headers={"content-type": "image/png"}
    )
    assert said.status_code == 400 and "only model and draw" in said.json()["error"]["message"]


def test_one_model_needs_no_name():
    with hosted(summer()) as server:
        said = httpx.post(f"{server.url}/predict", json={"inputs": [{"a": 1, "b": "x"}]}).json()
        assert said == {"model": "sums", "predictions": [{"sum": 2.0}]}


def test_metrics_are_prometheus_text_with_counts_by_hand():
    from prometheus_client.parser import text_string_to_metric_families

    with hosted(echo(), summer()) as server:
        for body in ({"model": "echo", "prompt": "ab"}, {"model": "echo"}):
            httpx.post(f"{server.url}/v1/completions", json=body)
        httpx.post(f"{server.url}/predict", json={"model": "sums", "inputs": [{"a": 1, "b": ""}] * 3})
        for path in ("/nowhere", "/v1/models/echo"):
            httpx.get(f"{server.url}{path}")
        said = httpx.get(f"{server.url}/metrics")
    assert said.headers["content-type"].startswith("text/plain; version=")
    found = {
        (one.name, *sorted(one.labels.values())): one.value
        for family in text_string_to_metric_families(said.text)
        for one in family.samples
    }
    requests = "jaxmodels_http_requests_total"
    assert found[requests, "/v1/completions", "200"] == found[requests, "/v1/completions", "400"] == 1
    assert found[requests, "404", "other"] == 1 and found["jaxmodels_inputs_total", "sums"] == 3
    assert found["jaxmodels_http_request_seconds_count", "/v1/completions"] == 2
    assert found["jaxmodels_slots", "echo"] == 2 and found["jaxmodels_slots_used", "echo"] == 0
    assert found["jaxmodels_tokens_out_total", "echo"] == 7
    waits = "jaxmodels_queue_seconds"
    assert found[f"{waits}_count", "echo"] == found[f"{waits}_bucket", "+Inf", "echo"] == 4
    assert (found[f"{waits}_bucket", "0.005", "echo"], found[f"{waits}_bucket", "2.5", "echo"]) == (1, 3)
    assert found[f"{waits}_sum", "echo"] == 4.5
