"""Experiments of texts are used where neither their data nor their pretrained weights are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from jaxmodels.runs import experiment_file
from jaxmodels.runs.learned import Memory

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "where", "is", "my", "card", "?", "ada", "wrote", "it"]


def built(name, memory, **knobs):
    file = experiment_file.load(EXPERIMENTS / f"{name}.py")
    with memory.building():
        return file.module.build(experiment_file.make_config(file, knobs))


@pytest.fixture
def encoder(tmp_path):
    """A folder of a small encoder with its tokenizer."""
    tokenizers = pytest.importorskip("tokenizers")
    import jax
    import jax.numpy as jnp

    from jaxmodels.convert.save import save_pretrained
    from jaxmodels.models.bert import Bert

    model = Bert(len(WORDS), length=300, width=8, depth=1, heads=2, hidden_width=8)
    params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    save_pretrained(tmp_path / "encoder", model, params)
    tokenizer = tokenizers.BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)}, lowercase=True)
    tokenizer.save(str(tmp_path / "encoder" / "tokenizer.json"))
    return tmp_path / "encoder"


@pytest.mark.parametrize(
    ("name", "given", "key"),
    [
        ("banking77_bert", "Where is my card?", "inputs"),
        ("squad_bert", {"question": "Who?", "context": "Ada wrote it"}, "window_inputs"),
    ],
)
def test_an_encoder_and_its_tokenizer_are_in_the_run(name, given, key, encoder, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMODELS_DATA", str(tmp_path / "nowhere"))
    memory = Memory()
    before = built(name, memory, weights=str(encoder))
    shutil.rmtree(encoder)
    kept = Memory(json.loads(json.dumps(memory.values)))
    after = built(name, kept, weights=str(encoder))
    read = before.predictor.read(given), after.predictor.read(given)
    np.testing.assert_array_equal(*(example[key] for example in read))
    assert 2 < read[0][key].max() < len(WORDS)
    with pytest.raises(FileNotFoundError):
        built(name, Memory(), weights=str(encoder))


@pytest.mark.parametrize("name", ["polarity", "subjectivity"])
def test_a_vocabulary_is_in_the_run(name, monkeypatch, tmp_path):
    monkeypatch.setenv("JAXMODELS_DATA", str(tmp_path / "nowhere"))
    memory = Memory({f"{name}: the 20000 commonest words of fold 0": ["film", "it's", ",", "well-made"]})
    predictor = built(f"{name}_textcnn", memory).predictor
    with memory.building():
        example = predictor.read("It's a WELL-MADE film, really")
    assert example["inputs"][:7].tolist() == [3, 1, 5, 2, 4, 1, 0] and len(example["inputs"]) == 16


@pytest.mark.parametrize("name", ["digits_mlp", "digits_cnn"])
def test_a_picture_of_a_digit_is_read_as_it_was_trained_on(name, tmp_path):
    Image = pytest.importorskip("PIL.Image")
    experiment = built(name, Memory())
    image_HW1 = experiment.evals["test"].rows(0, 0, 1)["image"][0]
    Image.fromarray((image_HW1[..., 0] * 255).round().astype(np.uint8)).save(tmp_path / "digit.png")
    found = experiment.predictor.read(tmp_path / "digit.png")["image"]
    np.testing.assert_allclose(found, image_HW1, atol=1 / 255)


def test_detections_are_told_as_counts_and_as_boxes_in_shares_of_the_image(tmp_path, monkeypatch):
    from jaxmodels.tasks.boxes import Detections

    monkeypatch.setenv("JAXMODELS_DATA", str(tmp_path / "nowhere"))
    report = built("bccd_detection", Memory()).predictor.report
    boxes = np.array([[0, 0, 120, 160], [60, 80, 240, 320], [1, 1, 2, 2], [0, 0, 0, 0]], np.float32)
    found = Detections(
        boxes=boxes,
        scores=np.array([0.9, 0.5, 0.1, 0.9], np.float32),
        classes=np.array([0, 1, 1, 2], np.int32),
        number=np.int32(3),
    )
    said = report(found)
    assert sum(value for name, value in said.items() if name != "found") == 2
    assert [one["box"] for one in said["found"]] == [[0, 0, 0.5, 0.5], [0.25, 0.25, 1, 1]]
    assert [one["score"] for one in said["found"]] == [0.9, 0.5]
