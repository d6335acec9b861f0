"""What the page on using models says of the server: its commands and its program, against one that runs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

openai = pytest.importorskip("openai", reason="needs openai")
pytest.importorskip("starlette", reason="needs starlette; pip install 'jaxmodels[serve]'")
pytest.importorskip("PIL", reason="needs pillow")

from serving.hosting import echo, hosted, predicting, same, sizer  # noqa: E402

from jaxmodels import Predictor  # noqa: E402
from jaxmodels.runs.png import write_png  # noqa: E402
from jaxmodels.serving.generation_request import IGNORED  # noqa: E402

SERVE = (
    (Path(__file__).parents[2] / "docs" / "use.md").read_text().partition("## Serve")[2].partition("\n## ")[0]
)
ADDRESS = "http://127.0.0.1:8000"


def block(kind):
    [found] = re.findall(rf"^```{kind}\n(.*?)^```$", SERVE, re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture(scope="module")
def url():
    def read(row):
        return {"x": np.array([len(row["town"]) * row["size"]], np.float32)}

    flats = predicting(
        "flats", Predictor(read, same, lambda x: {"price": float(x[0])}, input="row", fields=("town", "size"))
    )
    pictures = sizer()
    pictures.name = "pictures"
    with hosted(echo("stories260K", template=""), pictures, flats) as server:
        yield server.url


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_its_lines_for_curl_are_answered(url, tmp_path):
    write_png(tmp_path / "shoe.png", np.zeros((3, 4, 3), np.uint8))
    said = []
    for line in block("sh").replace("\\\n", " ").splitlines():
        command = line.replace(ADDRESS, url).replace("curl", "curl --silent --show-error --fail", 1)
        done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        said.append(json.loads(done.stdout))
    assert said[0]["choices"][0]["text"].startswith("Once upon a time")
    assert said[1]["predictions"] == [{"width": 4.0, "height": 3.0}]
    assert [one["price"] for one in said[2]["predictions"]] == [280.0, 225.0]


def test_its_program_prints_the_text_as_it_comes(url, capsys):
    exec(block("python").replace(ADDRESS, url), {})
    assert capsys.readouterr().out == ("Once upon a time" * 3)[:40]


def test_it_names_every_field_that_is_ignored():
    said = SERVE.partition("ignored are")[2].partition(". ")[0]
    assert set(re.findall(r"`(\w+)`", said.partition(".\n")[0])) == set(IGNORED)
