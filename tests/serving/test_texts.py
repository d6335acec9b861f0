"""Texts of the real engine over HTTP: those of generate, whatever else is asked at the time."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import pytest

openai = pytest.importorskip("openai", reason="needs openai")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")

from serving.hosting import hosted  # noqa: E402
from serving.language import model  # noqa: E402

from jaxmodels import Model  # noqa: E402
from jaxmodels.decoding import generate  # noqa: E402
from jaxmodels.serving.engine import Engine  # noqa: E402
from jaxmodels.serving.served import Served  # noqa: E402


@pytest.fixture(scope="module")
def engine():
    decoder, params = model("gpt")
    engine = Engine(decoder, params, {}, slots=3, queue=40)
    engine.start()
    return engine


@pytest.fixture(scope="module")
def client(engine):
    decoder, params = model("gpt")
    served = Served("tiny", Model(Path("tiny"), params, {}, decoder=decoder), engine)
    with (
        hosted(served) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield client


def test_every_choice_is_the_text_of_generate_with_its_seed(client):
    decoder, params = model("gpt")
    said = {}

    def ask(seed):
        options = {"temperature": 1.3, "top_p": 0.9, "max_tokens": 12, "seed": seed, "n": 2}
        said[seed] = client.completions.create(model="tiny", prompt="the ba", logprobs=0, **options)

    clients = [threading.Thread(target=ask, args=(10 * n,)) for n in range(6)]
    for one in clients:
        one.start()
    for one in clients:
        one.join()
    for seed, answer in said.items():
        for choice in answer.choices:
            options = {"temperature": 1.3, "top_p": 0.9, "tokens": 12, "seed": seed + choice.index}
            [alone] = generate(decoder, params, {}, ["the ba"], **options)
            assert choice.text == alone.text
            assert choice.logprobs.token_logprobs == pytest.approx(alone.logprobs, abs=1e-4)
            assert choice.finish_reason == ("length" if len(alone.tokens) == 12 else "stop")


def test_a_text_follows_the_schema_that_is_asked_for(client):
    pytest.importorskip("llguidance", reason="needs llguidance; pip install 'jaxmodels[schema]'")
    schema = {"type": "array", "items": {"type": "boolean"}, "maxItems": 2, "minItems": 1}
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    ask = {"model": "tiny", "prompt": "a", "max_tokens": 40, "temperature": 1}
    for seed in range(3):
        said = client.completions.create(**ask, seed=seed, extra_body={"response_format": form}).choices[0]
        found = json.loads(said.text)
        assert said.finish_reason == "stop" and 1 <= len(found) <= 2 and {*map(type, found)} == {bool}
    form["json_schema"]["schema"] = {"type": "nothing"}
    with pytest.raises(openai.BadRequestError, match="schema") as caught:
        client.completions.create(**ask, extra_body={"response_format": form})
    assert caught.value.param == "response_format"


def test_a_client_that_hangs_up_frees_its_slot(client, engine):
    before = engine.metrics()["requests_cancelled_total"]
    for _ in range(4):  # more than there are slots
        stream = client.completions.create(
            model="tiny", prompt="ab", max_tokens=40, n=8, stream=True, temperature=2
        )
        next(iter(stream))
        stream.close()
    end = time.monotonic() + 10
    while engine.metrics()["slots_used"] or engine.metrics()["queue"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert engine.metrics()["requests_cancelled_total"] > before
    assert client.completions.create(model="tiny", prompt="ab", max_tokens=2).usage.prompt_tokens == 2


def test_nothing_is_compiled_for_requests(client, engine):
    client.completions.create(model="tiny", prompt="abcdefg", max_tokens=3, seed=1, logprobs=0)
    assert engine.metrics()["compilations_total"] == 0
