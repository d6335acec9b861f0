"""The page on speech: its experiments train on a few made sounds, and predict."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.data.formats.audio import wav

PAGE = (Path(__file__).parents[2] / "docs" / "speech.md").read_text()
RATE = 16_000


@pytest.fixture
def here(tmp_path, monkeypatch):
    pytest.importorskip("soundfile", reason="needs soundfile")
    monkeypatch.chdir(tmp_path)
    for title, text in re.findall(r'^```python title="([^"]+)"\n(.*?)^```$', PAGE, re.MULTILINE | re.DOTALL):
        Path(title).write_text(text)
    return tmp_path


def tone(path, hertz, seconds=0.4):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(wav(0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * RATE)) / RATE), RATE))


def run(words, capsys):
    capsys.readouterr()
    assert cli.main([*words, "--mesh", "data=1"]) == 0
    return capsys.readouterr().out


def test_a_folder_of_words_becomes_a_classifier_of_words(here, capsys):
    for i in range(4):
        tone(here / f"words/low/{i}.wav", 300 + 10 * i)
        tone(here / f"words/high/{i}.wav", 3_000 + 100 * i)
    knobs = ["--steps", "30", "--batch", "8", "--folder", "run", "--quiet"]
    run(["train", "own_words.py", *knobs], capsys)
    tone(here / "x.wav", 3_150)
    said = json.loads(run(["predict", "run", "x.wav", "--json"], capsys))
    assert said["class"] == "high"


def test_a_table_of_sentences_becomes_a_recogniser(here, capsys):
    lines = ["file,text"]
    for i, text in enumerate(["A b.", "b", "it's", "b a"]):
        tone(here / f"sounds/{i}.wav", 400 * (i + 1), 0.5)
        lines.append(f"sounds/{i}.wav,{text}")
    for name in ("train.csv", "test.csv"):
        Path(name).write_text("\n".join(lines))
    knobs = ["--steps", "2", "--batch", "4", "--width", "8", "--depth", "1", "--folder", "run", "--quiet"]
    run(["train", "own_sentences.py", *knobs], capsys)
    metrics = json.loads(Path("run/result.json").read_text())["metrics"]
    assert metrics["test/impossible"] == 0 and {"test/wer", "test/cer"} <= metrics.keys()
    said = json.loads(run(["predict", "run", "sounds/0.wav", "--json"], capsys))
    assert isinstance(said["text"], str)
    pytest.importorskip("plotly", reason="needs plotly")
    assert cli.main(["report", "run", "--evaluate", "--quiet"]) == 0
    page = Path("run/report.html").read_text()
    assert "Texts of test" in page and "4 texts of 11 labels" in page and page.count("<audio") == 4
