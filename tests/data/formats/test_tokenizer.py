"""Tokenizers give exactly the numbers of the libraries whose files they read."""

from __future__ import annotations

import base64
import io
import json
import sys
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmodels.data.formats.tokenizer import CL100K, GPT2, Tokenizer

tokenizers = pytest.importorskip("tokenizers")

TEXTS = ["the cat sat on the mat", "a cat, a hat; the bat's 12 345 mats", "naïve café — 日本語 ☃"] * 20
UNICODE = st.text(max_size=40)


@pytest.fixture(scope="module")
def trained():
    return {
        kind: Tokenizer.train(TEXTS, vocabulary=300, kind=kind) for kind in ("bpe", "wordpiece", "unigram")
    }


@given(UNICODE)
def test_byte_level_bpe_loses_no_text(text):
    made = bpe()
    assert made.decode(made.encode(text)) == text


@cache
def bpe():
    return Tokenizer.train(TEXTS, vocabulary=300)


def test_training_gives_the_same_tokenizer_again(tmp_path, trained):
    for name in ("a", "b"):
        Tokenizer.train(TEXTS, vocabulary=300).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_saved_tokenizer_is_the_same(tmp_path, trained, kind):
    trained[kind].save(tmp_path / "tokenizer.json")
    for made in (Tokenizer.load(tmp_path), Tokenizer.load(tmp_path / "tokenizer.json")):
        assert made.encode_many(TEXTS) == [trained[kind].encode(text) for text in TEXTS]
        assert made.vocabulary == trained[kind].vocabulary <= 300


def test_pieces_are_found_by_name(trained):
    assert trained["wordpiece"].token("[MASK]") == 4
    assert trained["wordpiece"].token("no such piece") is None


# Small tokenizers, trained here


def as_bytes(piece):
    """A piece of byte-level BPE as bytes: a printable byte is its own character, others are from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return bytes(hidden[ord(c) - 256] if ord(c) > 255 else ord(c) for c in piece)


@pytest.mark.parametrize(("ours", "theirs"), [(GPT2, "gpt2"), (CL100K, "cl100k")])
def test_a_list_of_ranks_gives_tiktokens_numbers(tmp_path, ours, theirs):
    tiktoken = pytest.importorskip("tiktoken")
    bpe().save(tmp_path / "tokenizer.json")
    pieces = json.loads((tmp_path / "tokenizer.json").read_text())["model"]["vocab"]
    ranks = {as_bytes(piece): rank for piece, rank in pieces.items()}
    (tmp_path / "x.tiktoken").write_bytes(
        b"".join(b"%s %d\n" % (base64.b64encode(k), v) for k, v in ranks.items())
    )
    want = tiktoken.Encoding("theirs", pat_str=PATTERNS[theirs], mergeable_ranks=ranks, special_tokens={})
    made = Tokenizer.load(tmp_path / "x.tiktoken", pattern=ours)

    @settings(max_examples=300)
    @given(st.text(max_size=40) | st.text("\n\r\t \x85\u2028'sStTlL09½ſ日!.-a", max_size=20))
    def check(text):
        assert made.encode(text) == want.encode_ordinary(text)

    check()
    codes = [code for code in range(0, 0x110000, 53) if not 0xD800 <= code < 0xE000]
    texts = [f"a{chr(code)}b 1{chr(code)}2 {chr(code)}" for code in codes]
    assert made.encode_many(texts) == [want.encode_ordinary(text) for text in texts]


# tiktoken 0.14's own expressions, from tiktoken_ext/openai_public.py; ours have no possessive repeats.
PATTERNS = {
    "gpt2": r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s""",
    "cl100k": r"""'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+"""
    r"""|\s++$|\s*[\r\n]|\s+(?!\S)|\s""",
}


def test_a_vocabulary_with_merges_gives_the_numbers_of_its_tokenizer_json(tmp_path):
    bpe().save(tmp_path / "whole.json")
    model = json.loads((tmp_path / "whole.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(model["vocab"]))
    (tmp_path / "merges.txt").write_text(
        "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"])
    )
    made = Tokenizer.load(tmp_path)

    @given(UNICODE)
    def check(text):
        assert made.encode(text) == bpe().encode(text)

    check()


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_a_trained_tokenizer_gives_the_librarys_numbers(tmp_path, trained, kind):
    trained[kind].save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    @given(UNICODE)
    def check(text):
        found = trained[kind].encode(text)
        assert found == theirs.encode(text).ids and trained[kind].encode_many([text, text]) == [found, found]
        assert trained[kind].decode(found) == theirs.decode(found, skip_special_tokens=False)
        assert all(0 <= number < trained[kind].vocabulary for number in found)

    check()


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_small_sentencepiece_models_give_sentencepieces_numbers(tmp_path, kind):
    sentencepiece = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=made,
        vocab_size=60,
        model_type=kind,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (tmp_path / "tokenizer.model").write_bytes(made.getvalue())
    theirs, ours = sentencepiece.SentencePieceProcessor(model_proto=made.getvalue()), Tokenizer.load(tmp_path)

    @given(UNICODE)
    def check(text):
        found = ours.encode(text)
        assert found == theirs.encode(text) == ours.encode_many([text])[0]
        assert ours.decode(found) == theirs.decode(found)

    check()
    assert ours.vocabulary == theirs.get_piece_size() and ours.token("no such piece") is None


def test_a_file_that_asks_for_one_length_cuts_and_pads_nothing(tmp_path):
    bpe().save(tmp_path / "tokenizer.json")
    theirs = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    theirs.enable_truncation(4)
    theirs.enable_padding(length=4)
    theirs.save(str(tmp_path / "tokenizer.json"))
    assert Tokenizer.load(tmp_path).encode_many(["a", TEXTS[0]]) == [
        bpe().encode("a"),
        bpe().encode(TEXTS[0]),
    ]


def test_only_a_line_feed_ends_a_word_piece(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n[CLS]\n[SEP]\na\u2028\x85\nb\n", encoding="utf-8")
    made = Tokenizer.load(tmp_path)
    assert (made.token("b"), made.vocabulary) == (4, 5)


def test_every_number_is_below_the_vocabulary(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 9}))
    (tmp_path / "merges.txt").write_text("")
    assert Tokenizer.load(tmp_path).vocabulary == 10


# Real ones


@pytest.fixture
def assets(real):
    return real("tokenizers")


@pytest.mark.parametrize(
    ("name", "pattern"), [("gpt2", GPT2), ("multilingual", GPT2), ("multilingual", CL100K)]
)
def test_tiktoken_lists_give_tiktokens_numbers(assets, name, pattern):
    tiktoken = pytest.importorskip("tiktoken")
    path = assets / f"{name}.tiktoken"
    ranks = {
        base64.b64decode(a): int(b) for a, b in (line.split() for line in path.read_bytes().splitlines())
    }
    theirs = tiktoken.Encoding("theirs", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    ours = Tokenizer.load(path, pattern=pattern)
    assert ours.vocabulary == len(ranks) - (b"" in ranks)

    @given(UNICODE)
    def check(text):
        assert ours.encode(text) == theirs.encode_ordinary(text)
        assert ours.decode(ours.encode(text)) == text

    check()
    for text in TEXTS[:3]:
        assert ours.encode(text) == theirs.encode_ordinary(text)


def test_a_tokenizer_json_gives_the_librarys_numbers(assets):
    path = assets / "gpt2_tokenizer.json"
    theirs, ours = tokenizers.Tokenizer.from_file(str(path)), Tokenizer.load(path)

    @given(UNICODE)
    def check(text):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids

    check()


def test_a_list_of_word_pieces_gives_the_numbers_of_its_tokenizer_json(assets):
    theirs = tokenizers.Tokenizer.from_file(str(assets / "bert_uncased" / "tokenizer.json"))
    theirs.no_truncation()
    theirs.no_padding()
    ours = Tokenizer.load(assets / "bert_uncased" / "vocab.txt")

    @given(UNICODE)
    def check(text):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids

    check()


def test_sentencepiece_models_give_sentencepieces_numbers(assets, tmp_path):
    sentencepiece = pytest.importorskip("sentencepiece")
    path = assets / "sentencepiece_test_model.model"
    theirs, ours = sentencepiece.SentencePieceProcessor(str(path)), Tokenizer.load(path)
    ours.save(tmp_path / "copy.model")
    copy = Tokenizer.load(tmp_path / "copy.model")

    @given(UNICODE)
    def check(text):
        assert ours.encode(text) == copy.encode(text) == theirs.encode(text)
        assert ours.decode(ours.encode(text)) == theirs.decode(theirs.encode(text))

    check()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xfe"),
        ("a.tiktoken", b"not base64!\n"),
        ("a.tiktoken", b"YQ== 0\n"),
        (
            "a.tiktoken",
            b"".join(b"%s %d\n" % (base64.b64encode(bytes([i])), i) for i in range(256)) + b"YWJj 256\n",
        ),
        ("a.model", b"nonsense"),
        ("a.model", b""),
        ("vocab.txt", b"\xff"),
    ],
)
def test_a_broken_file_is_one_clear_error(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is no tokenizer that can be read"):
        Tokenizer.load(tmp_path / name)


def test_a_folder_without_a_tokenizer_says_what_it_lacks(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*got none of tokenizer\.json"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("library", ["tokenizers", "sentencepiece"])
def test_a_library_that_is_missing_is_named_with_what_brings_it(tmp_path, monkeypatch, library):
    name = {"tokenizers": "tokenizer.json", "sentencepiece": "tokenizer.model"}[library]
    (tmp_path / name).write_bytes(b"{}")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ValueError, match=rf"^{library} is not installed.*pip install 'jaxmodels\[text\]'"):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_special_tokens_have_the_first_numbers_are_never_split_and_are_decoded(kind, tmp_path):
    texts = ["the cat sat on the mat<|end|>", "The dog <|user|> and the log", "a cat and a dog"] * 20
    special = ["<|end|>", "<|user|>", "<|E|>" if kind == "bpe" else "<|É|>"]
    made = Tokenizer.train(texts, vocabulary=400, kind=kind, special=special)
    made.save(tmp_path / made.name)
    for tokenizer in (made, Tokenizer.load(tmp_path)):
        assert [tokenizer.token(piece) for piece in special] == [0, 1, 2]
        tokens = tokenizer.encode(f"the cat<|end|>dog<|user|>{special[2]}")
        assert [token for token in tokens if token < 3] == [0, 1, 2] and tokens[-2:] == [1, 2]
        assert tokenizer.decode([0, 1, 2]).replace(" ", "") == "".join(special)
        inside = (
            tokenizer.encode("cat")
            == tokens[tokens.index(0) - len(tokenizer.encode("cat")) : tokens.index(0)]
        )
        assert inside or kind == "bpe"  # the byte-level token of " cat" is another one
        assert not {*tokenizer.encode("<|en d|> <user>")} & {0, 1, 2}


def test_special_tokens_that_cannot_be_are_named():
    with pytest.raises(ValueError, match=r"got special='<end>'; expected texts.*Give a list"):
        Tokenizer.train(["a"], special="<end>")
    with pytest.raises(ValueError, match=r"expected each token once"):
        Tokenizer.train(["a"], special=["<s>", "<s>"])
    with pytest.raises(ValueError, match=r"for bpe; expected ASCII alone"):
        Tokenizer.train(["a"], special=["<É>"])
    with pytest.raises(ValueError, match=r"at least 258"):
        Tokenizer.train(["a"], special=["<s>"], vocabulary=257)
