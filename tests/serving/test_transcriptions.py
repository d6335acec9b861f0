"""OpenAI's own client sends recordings and gets what is said in them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

openai = pytest.importorskip("openai", reason="needs openai")
httpx = pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")
soundfile = pytest.importorskip("soundfile", reason="needs soundfile; pip install 'jaxmodels[data]'")

from serving.hosting import echo, hosted  # noqa: E402
from speech.small import transcriber  # noqa: E402

from jaxmodels import Model  # noqa: E402
from jaxmodels.data.formats.audio_file import read_audio  # noqa: E402
from jaxmodels.serving.limits import Limits  # noqa: E402
from jaxmodels.serving.served import Served  # noqa: E402
from jaxmodels.speech.predictor import predictor  # noqa: E402


def wav(seconds=0.4):
    file = io.BytesIO()
    sound = np.random.default_rng(0).normal(size=int(seconds * 16_000)).astype(np.float32) * 0.1
    soundfile.write(file, sound, 16_000, format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def heard():
    return transcriber()


@pytest.fixture(scope="module")
def url(heard):
    model = Served(
        "ear", Model(Path("ear"), heard.params, {}, predictor(heard, read_audio), transcriber=heard)
    )
    with hosted(model, echo(), limits=Limits(body=1 << 20)) as server:
        yield server.url


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def ask(client, **options):
    return client.audio.transcriptions.create(file=("a.wav", wav()), model="ear", language="en", **options)


def test_every_format_has_the_text_of_the_transcriber(client, heard):
    want = heard(read_audio(io.BytesIO(wav()), rate=16_000), language="en")
    assert want.text and ask(client).text == want.text
    assert ask(client, response_format="text") == want.text + "\n"
    assert ask(client, response_format="srt").startswith("1\n00:00:00,")
    full = ask(client, response_format="verbose_json", timestamp_granularities=["segment"])
    assert (full.text, full.language, float(full.duration)) == (want.text, "en", 0.4)
    assert [one.tokens for one in full.segments] == [one.tokens for one in want.segments]
    assert full.segments[0].avg_logprob == pytest.approx(want.segments[0].logprob)


def test_the_model_says_that_it_transcribes(client):
    assert client.models.retrieve("ear").does == ["transcriptions", "predict"]


def test_predict_says_what_the_first_window_holds(url, heard):
    headers = {"content-type": "audio/wav"}
    got = httpx.post(f"{url}/predict?model=ear", content=wav(2), headers=headers, timeout=60).json()
    again = httpx.post(f"{url}/predict?model=ear", content=wav(0.4), headers=headers, timeout=60).json()
    (said,) = got["predictions"]
    assert said["text"] and said["language"] in ("en", "de") and 0 < said["no_speech"] < 1
    assert again["predictions"] != [] and heard.samples == 6400


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"file": ("a.wav", b"RIFF")}, "file: the recording could not be read: got"),
        ({"file": ("a.wav", b"")}, "file: the recording could not be read: got"),
        ({"language": "xx"}, "language: got the language 'xx'; expected one of de, en"),
        (
            {"model": "echo"},
            "model: got echo, which does completions, chat; expected a model that does trans",
        ),
        ({"response_format": "vtt"}, 'response_format: got "vtt"; expected "json" or "text"'),
        ({"prompt": "Names"}, "prompt: got .* expected none, as texts are written without one"),
        ({"temperature": 2}, "temperature: got 2; expected a number from 0 to 1"),
        ({"timestamp_granularities": ["word"]}, "timestamp_granularities: got .* words have no times"),
        ({"extra_body": {"speed": "2"}}, "speed.* got a field that is not supported here"),
    ],
    ids=str,
)
def test_what_cannot_be_answered_is_refused_with_the_field(client, options, message):
    given = {"file": ("a.wav", wav()), "model": "ear", **options}
    with pytest.raises(openai.BadRequestError, match=message):
        client.audio.transcriptions.create(**given)


@pytest.mark.parametrize(
    ("request_", "status", "message"),
    [
        ({"json": {"model": "ear"}}, 415, "expected multipart/form-data with a file"),
        ({"data": {"model": "ear"}, "files": {"sound": b"x"}}, 400, "expected file. Call it file"),
        ({"files": {"model": (None, "ear")}}, 400, "file: got none; expected a recording"),
        ({"files": [("file", b"a"), ("file", b"b")]}, 400, "got a form that cannot be read"),
        ({"files": {"file": b"x" * (1 << 21)}}, 413, "expected at most 1,048,576 bytes"),
        (
            {"content": b"--b\r\nnonsense", "headers": {"content-type": "multipart/form-data; boundary=b"}},
            400,
            "got a form that cannot be read|file: got none",
        ),
        (
            {"content": b"x", "headers": {"content-type": "multipart/form-data"}},
            400,
            "got a form that cannot be read",
        ),
    ],
    ids=["json", "other name", "no file", "two files", "too large", "nonsense", "no boundary"],
)
def test_a_form_that_is_not_sound_is_refused(url, request_, status, message):
    import re

    got = httpx.post(f"{url}/v1/audio/transcriptions", **request_)
    assert got.status_code == status
    assert re.search(message, got.json()["error"]["message"])
