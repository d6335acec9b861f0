"""Text files as token files: every text on its side, nothing lost, counts that are right."""

from __future__ import annotations

import io
import json
from itertools import pairwise

import numpy as np
import pytest

from jaxmodels.commands.tokenize import tokenize
from jaxmodels.data.formats.byte_text import held_out
from jaxmodels.data.formats.token_files import open_documents, open_tokens
from jaxmodels.data.formats.tokenizer import Tokenizer

pytest.importorskip("tokenizers")
pytestmark = pytest.mark.fast

TEXTS = ["the cat sat on the mat\n", "a cat, a hat; the bat's 12 345 mats\r\n", "naïve café — 日本語 ☃"]


@pytest.fixture
def where(tmp_path):
    (tmp_path / "texts" / "more").mkdir(parents=True)
    for i in range(30):
        (tmp_path / "texts" / ("more" if i % 2 else "") / f"{i}.txt").write_bytes(
            (TEXTS[i % 3] * (i + 1)).encode()
        )
    return tmp_path / "texts"


def read(out, side):
    """The documents of one side."""
    tokens, starts = open_tokens(out / f"{side}.npy"), open_documents(out / f"{side}.npy")
    return [tokens[a:b] for a, b in pairwise(starts)]


def test_every_text_lies_on_its_side_and_comes_back_byte_for_byte(where, tmp_path):
    tokenize(where, tmp_path / "out", vocabulary=300)
    made = Tokenizer.load(tmp_path / "out")
    for side in ("train", "validation"):
        paths = [
            path
            for path in sorted(where.rglob("*.txt"))
            if held_out(path.relative_to(where).as_posix(), 0.1) == (side != "train")
        ]
        assert [made.decode(x).encode() for x in read(tmp_path / "out", side)] == [
            path.read_bytes() for path in paths
        ]


def test_the_facts_count_what_is_written(where, tmp_path):
    facts = tokenize(where, tmp_path / "out", vocabulary=300)
    assert json.loads((tmp_path / "out" / "facts.json").read_text()) == facts
    assert facts["train_files"] + facts["validation_files"] == 30
    assert facts["train_bytes"] + facts["validation_bytes"] == sum(
        path.stat().st_size for path in where.rglob("*.txt")
    )
    for side in ("train", "validation"):
        tokens = sum(map(len, read(tmp_path / "out", side)))
        assert facts[f"{side}_tokens"] == tokens
        assert facts[f"{side}_bytes_per_token"] == pytest.approx(facts[f"{side}_bytes"] / tokens, abs=1e-4)


def test_the_tokenizer_learns_from_the_training_side_alone(where, tmp_path):
    tokenize(where, tmp_path / "a", vocabulary=300)
    for path in where.rglob("*.txt"):
        if held_out(path.relative_to(where).as_posix(), 0.1):
            path.write_text("something else altogether " * 99)
    tokenize(where, tmp_path / "b", vocabulary=300)
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (
        tmp_path / "b" / "tokenizer.json"
    ).read_bytes()


def test_a_tokenizer_can_be_given(where, tmp_path):
    made = Tokenizer.train(["other texts, other pairs"] * 9, vocabulary=280)
    made.save(tmp_path / "mine.json")
    facts = tokenize(where, tmp_path / "out", tokenizer=str(tmp_path / "mine.json"))
    assert facts["vocabulary"] == made.vocabulary
    assert read(tmp_path / "out", "train")[0].tolist() in [
        made.encode(path.read_bytes().decode()) for path in where.rglob("*.txt")
    ]


def test_a_folder_with_a_sentencepiece_model_can_be_given(where, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    (tmp_path / "given").mkdir()
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=60,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (tmp_path / "given" / "tokenizer.model").write_bytes(model.getvalue())
    facts = tokenize(where, tmp_path / "out", tokenizer=str(tmp_path / "given"))
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == model.getvalue()
    assert Tokenizer.load(tmp_path / "out").vocabulary == facts["vocabulary"]


@pytest.mark.slow
@pytest.mark.parametrize("size, dtype", [(2**16, np.uint16), (2**16 + 1, np.uint32)])
def test_tokens_are_as_small_as_the_vocabulary_allows(where, tmp_path, size, dtype):
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[UNK]", "[CLS]", "[SEP]", *(f"w{i}" for i in range(size - 3))])
    )
    tokenize(where, tmp_path / "out", tokenizer=str(tmp_path / "vocab.txt"))
    assert open_tokens(tmp_path / "out" / "train.npy").dtype == dtype


def test_no_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"got no file that matches"):
        tokenize(tmp_path, tmp_path / "out")


def test_all_texts_for_validation_are_refused(where, tmp_path):
    with pytest.raises(ValueError, match=r"got 30 files, all of them for validation"):
        tokenize(where, tmp_path / "out", fraction=1.0)


def test_what_is_no_text_is_named(where, tmp_path):
    (where / "picture.txt").write_bytes(b"\xff\xd8\xff")
    with pytest.raises(ValueError, match=r"picture\.txt: got no UTF-8 text"):
        tokenize(where, tmp_path / "out", vocabulary=300)


def test_special_tokens_are_known_first(where, tmp_path):
    tokenize(where, tmp_path / "out", vocabulary=300, special=("<|end|>",))
    assert Tokenizer.load(tmp_path / "out").token("<|end|>") == 0
    with pytest.raises(ValueError, match="expected them only where one is trained"):
        tokenize(where, tmp_path / "other", tokenizer=str(tmp_path / "out"), special=("<|end|>",))


@pytest.mark.fast
def test_a_kind_of_tokenizer_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"tokenize: got kind='nonesuch'; expected one of .+\. Do give"):
        tokenize(tmp_path, tmp_path / "out", kind="nonesuch")
