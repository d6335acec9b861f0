"""Sentences packed as NLTK packs them, written here."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest

from jaxmodels.data.datasets.sentences import FOLDS, SETS, UNKNOWN, as_text, sentences

pytestmark = pytest.mark.fast


def write(folder, name, change=lambda lines: lines):
    """Sentence i of class k: its class, its number and two words that all have."""
    package, members, each, encoding = SETS[name]
    with zipfile.ZipFile(folder / f"{package}.zip", "w") as packed:
        for k, member in enumerate(members):
            lines = change([f"Class{k} number{i} the film\n" for i in range(each)])
            packed.writestr(f"{package}/{member}", "".join(lines).encode(encoding))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_the_folds_hold_every_sentence_out_once_and_its_words_are_not_known_before(tmp_path, name):
    write(tmp_path, name)
    each = SETS[name].each
    held = 0
    for fold in range(FOLDS):
        train, out = (
            sentences(name, side, 100, fold=fold, folder=tmp_path).arrays for side in ("train", "held-out")
        )
        assert len(train["label"]) + len(out["label"]) == 2 * each
        held += len(out["label"])
        words = out["tokens"].reshape(-1, 4)
        assert len(set(words[out["label"] == 0, 0])) == 1 and (words[:, 0][out["label"] == 0] >= 2).all()
        assert not set(words[out["label"] == 0, 0]) & set(words[out["label"] == 1, 0])
        assert 0.4 < out["label"].mean() < 0.6
    assert held == 2 * each


def test_words_that_occur_once_in_training_are_unknown(tmp_path):
    write(tmp_path, "subjectivity")
    arrays = sentences("subjectivity", "train", 100, fold=3, folder=tmp_path).arrays
    words = arrays["tokens"].reshape(-1, 4)
    once = np.bincount(words[:, 1])  # number i occurs once in each class, in this fold or another
    assert once[UNKNOWN] > 0 and words.max() < 20_000


@pytest.mark.slow
def test_inputs_can_be_read_as_text_again(tmp_path):
    write(tmp_path, "polarity")
    data = sentences("polarity", "held-out", 100, fold=3, length=6, folder=tmp_path)
    batch = data.rows(0, 0, 100)
    texts = [as_text(x, "polarity", fold=3, folder=tmp_path) for x in batch["inputs"]]
    assert [text.split()[0] for text in texts] == [f"class{k}" for k in batch["label"]]
    assert all(text.endswith(" the film") for text in texts) and any(" ? " in text for text in texts)


def test_few_words_are_the_commonest(tmp_path):
    write(tmp_path, "polarity")
    arrays = sentences("polarity", "train", 100, fold=0, words=4, folder=tmp_path).arrays
    assert set(arrays["tokens"].reshape(-1, 4)[:, 2:].reshape(-1)) == {2, 3}


def test_a_file_that_is_absent_short_or_of_another_kind_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no sentence_polarity.zip; .*Get them from .*nltk_data"):
        sentences("polarity", "train", 8, fold=0, folder=tmp_path).rows(0, 0, 8)
    (tmp_path / "a").mkdir()
    with pytest.raises(ValueError, match=r"rt-polarity.neg of 5,330 sentences; expected two files of 5,331"):
        sentences(
            "polarity", "train", 8, fold=0, folder=write(tmp_path / "a", "polarity", lambda x: x[1:])
        ).rows(0, 0, 8)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "subjectivity.zip").write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"subjectivity\.zip is damaged: got"):
        sentences("subjectivity", "train", 8, fold=0, folder=tmp_path / "b").rows(0, 0, 8)


def test_a_fold_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got fold=10; expected one from 0 to 9"):
        sentences("polarity", "train", 8, fold=10, folder=tmp_path)
