"""What stands beside a tokenizer's file is followed as transformers follows it, or refused by name."""

from __future__ import annotations

import inspect
import io
import json

import pytest

from jaxmodels.data.formats.tokenizer import Tokenizer
from jaxmodels.data.formats.tokenizer_settings import NAMED, REFUSED, SWITCHES

tokenizers = pytest.importorskip("tokenizers")
pytestmark = pytest.mark.fast

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
LETTERS = "abcdefghijklmnopqrstuvwxyzäöüABCDSÖ中国.!'< >|_"
WORDS = [*SPECIAL, *LETTERS, *("##" + c for c in LETTERS), "schön", "schon", "Schön", "中国", "der", "Der"]
TEXTS = [
    "Der schöne Schön, schon schön!",
    " 中国 der",
    "a [MASK] b",
    "it's  <|im_start|>user x<|endoftext|>y",
    "<s>a</s> b <pad>",
    "12 345",
    "e\u0301 cafe\u0301",
    "",
]


def folder(path, **files):
    """Writes JSON, and text where the value is one; names have _ for the dot."""
    for name, value in files.items():
        stem, _, end = name.rpartition("_")
        (path / f"{stem}.{end}").write_text(value if isinstance(value, str) else json.dumps(value))
    return path


def byte_pairs(path):
    """vocab.json and merges.txt of a byte-level tokenizer in which <|endoftext|> has a number."""
    Tokenizer.train(TEXTS * 9, vocabulary=300).save(path / "whole.json")
    model = json.loads((path / "whole.json").read_text())["model"]
    model["vocab"]["<|endoftext|>"] = len(model["vocab"])
    merges = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in model["merges"])
    return folder(path, vocab_json=model["vocab"], merges_txt=merges)


def theirs(path, name):
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, name).from_pretrained(path)
    return lambda text: made(text, add_special_tokens=False)["input_ids"]


BERT = [
    {"do_lower_case": False},
    {"do_lower_case": True},
    {"do_lower_case": True, "strip_accents": False},
    {"do_lower_case": False, "strip_accents": True},
    {"do_lower_case": False, "tokenize_chinese_chars": False},
]


@pytest.mark.slow
@pytest.mark.parametrize("said", BERT, ids=str)
@pytest.mark.parametrize("fast", [False, True])
def test_letters_are_kept_or_changed_as_bert_says(tmp_path, said, fast):
    folder(
        tmp_path,
        vocab_txt="\n".join(WORDS) + "\n",
        tokenizer_config_json={"tokenizer_class": "BertTokenizer", **said},
    )
    want = theirs(tmp_path, "BertTokenizer")
    if fast:  # a tokenizer.json that says otherwise
        made = tokenizers.BertWordPieceTokenizer(
            {word: i for i, word in enumerate(WORDS)}, lowercase=not said["do_lower_case"]
        )
        made.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(tmp_path)
    for text in TEXTS:
        assert ours.encode(text) == want(text)


def test_a_german_cased_vocabulary_keeps_its_letters(tmp_path):
    said = {"do_lower_case": False}
    ours = Tokenizer.load(folder(tmp_path, vocab_txt="\n".join(WORDS) + "\n", tokenizer_config_json=said))
    assert ours.encode("schön Schön") == [WORDS.index("schön"), WORDS.index("Schön")]
    (tmp_path / "tokenizer_config.json").unlink()  # capital letters say it too, without an English word
    assert Tokenizer.load(tmp_path).encode("schön Schön") == [WORDS.index("schön"), WORDS.index("Schön")]


PAIRS = [
    ("GPT2Tokenizer", {}),
    ("GPT2Tokenizer", {"add_prefix_space": True}),
    ("GPT2TokenizerFast", {"added_tokens_json": {"<|im_start|>": 301}}),
    ("RobertaTokenizer", {"bos_token": "<|endoftext|>", "unk_token": "<|endoftext|>"}),
    ("Qwen2Tokenizer", {"added_tokens_json": {"<|im_start|>": 301}}),
    ("Qwen2Tokenizer", {"pad_token": "<|endoftext|>"}),
]


@pytest.mark.parametrize(("kind", "said"), PAIRS, ids=str)
def test_pairs_of_bytes_are_split_by_the_rule_of_their_class(tmp_path, kind, said):
    said = dict(said)
    files = {"added_tokens_json": said.pop("added_tokens_json")} if "added_tokens_json" in said else {}
    byte_pairs(tmp_path)
    endoftext = {"eos_token": "<|endoftext|>"}
    folder(tmp_path, tokenizer_config_json={"tokenizer_class": kind, **endoftext, **said}, **files)
    (tmp_path / "whole.json").unlink()
    ours, want = Tokenizer.load(tmp_path), theirs(tmp_path, kind.removesuffix("Fast"))
    for text in TEXTS:
        if (
            kind != "RobertaTokenizer" or "<" not in text
        ):  # has <s> and others of its own, beyond these pieces
            assert ours.encode(text) == want(text), text
    if files:
        assert (
            ours.encode("<|im_start|>") == [301]
            and ours.decode([301]) == "<|im_start|>"
            and ours.vocabulary == 302
        )


def test_the_kind_of_the_model_says_the_rule_where_no_class_is_named(tmp_path):
    byte_pairs(tmp_path)
    plain = Tokenizer.load(tmp_path).encode("12 345")
    folder(tmp_path, config_json={"model_type": "qwen2"})
    assert Tokenizer.load(tmp_path).encode("12 345") != plain
    folder(tmp_path, config_json={"model_type": "llama"})
    with pytest.raises(
        ValueError,
        match=r"got vocab.json and merges.txt of a LlamaTokenizer.*expected one of GPT2, .*Write a",
    ):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"tokenizer_config_json": {"tokenizer_class": "CLIPTokenizer"}},
            r"of a CLIPTokenizer, whose rule is not known here",
        ),
        (
            {"tokenizer_config_json": {"do_basic_tokenize": False}},
            r"got do_basic_tokenize False; expected True, the only value",
        ),
        (
            {"tokenizer_config_json": {"never_split": ["a"]}},
            r"got never_split \['a'\]; expected \[\], the only value",
        ),
        (
            {"tokenizer_config_json": {"add_bos_token": "yes"}},
            r"got add_bos_token 'yes'; expected true or false",
        ),
        ({"tokenizer_config_json": {"bos_token": 3}}, r"got bos_token '3'; expected a token's text"),
        (
            {"tokenizer_config_json": {"added_tokens_decoder": {"x": {"content": "a"}}}},
            r"expected a token with its number",
        ),
        (
            {"tokenizer_config_json": {"added_tokens_decoder": {"7": {"content": "new"}}}},
            r"'new' is added as number 7",
        ),
        ({"added_tokens_json": {"new": "x"}}, r"got new 'x'; expected the number of a token"),
        ({"added_tokens_json": {"new": 7, "other": 7}}, r"got two tokens of one number; expected one each"),
        ({"added_tokens_json": '{"new": 400, "new": 401}'}, r"a key twice in an object"),
        ({"vocab_json": '{"a": 0, "a": 1}'}, r"a key twice in an object"),
        ({"vocab_json": {"a": 0, "b</w>": 1}}, r"its pieces end in </w>, as those of CLIP"),
    ],
)
def test_what_is_not_followed_is_refused_by_name(tmp_path, files, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.load(folder(byte_pairs(tmp_path), **files) / "vocab.json")


def test_a_list_of_words_for_another_cutter_is_refused_where_only_the_model_names_it(tmp_path):
    folder(tmp_path, vocab_txt="\n".join(WORDS), config_json={"tokenizer_class": "BertJapaneseTokenizer"})
    with pytest.raises(
        ValueError, match=r"got vocab.txt of a BertJapaneseTokenizer, whose rule is not known here"
    ):
        Tokenizer.load(tmp_path)
    folder(tmp_path, config_json={"model_type": "gpt2"})
    assert Tokenizer.load(tmp_path).encode("der Schön") == [WORDS.index("der"), WORDS.index("Schön")]


def llama(path, **said):
    """A tokenizer.json whose template puts <s> first, and a tokenizer_config.json."""
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE({"<s>": 0, "</s>": 1, "a": 2, "b": 3}, [], unk_token="b")
    )
    made.add_special_tokens(["<s>", "</s>"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 0)]
    )
    made.save(str(path / "tokenizer.json"))
    kind = "PreTrainedTokenizerFast"
    return folder(
        path, tokenizer_config_json={"tokenizer_class": kind, "bos_token": "<s>", "eos_token": "</s>", **said}
    )


@pytest.mark.parametrize(
    ("said", "before", "after"),
    [
        ({}, (0,), ()),
        ({"add_bos_token": False}, (), ()),
        ({"add_bos_token": True, "add_eos_token": True}, (0,), (1,)),
        (
            {
                "add_bos_token": False,
                "add_eos_token": True,
                "eos_token": {"content": "</s>", "lstrip": False},
            },
            (),
            (1,),
        ),
    ],
    ids=str,
)
def test_what_stands_around_a_text_is_what_the_settings_say_before_the_template(
    tmp_path, said, before, after
):
    """As transformers 4 has it; version 5 neither reads these two beside a tokenizer.json nor writes them."""
    ours = Tokenizer.load(llama(tmp_path, **said))
    assert (ours.before, ours.after, ours.encode("ab")) == (before, after, [2, 3])
    if not said:
        transformers = pytest.importorskip("transformers")
        made = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
        assert made("ab")["input_ids"] == [*before, 2, 3, *after]


def test_special_tokens_in_a_text_are_split_where_the_folder_says_so(tmp_path):
    assert Tokenizer.load(llama(tmp_path)).encode("<s>a") == [0, 2]
    assert Tokenizer.load(llama(tmp_path, split_special_tokens=True)).encode("<s>a") == [3, 3, 3, 2]


def test_a_number_that_two_files_give_to_an_added_token_is_one(tmp_path):
    path = llama(tmp_path, added_tokens_decoder={"4": {"content": "<x>", "special": True}})
    assert Tokenizer.load(path).encode("a<x>b") == [2, 4, 3]
    path = llama(tmp_path, added_tokens_decoder={"9": {"content": "<x>", "special": True}})
    with pytest.raises(
        ValueError, match=r"got the added token '<x>' as number 9, and as 4 in tokenizer.json"
    ):
        Tokenizer.load(path)


@pytest.mark.parametrize("space", [False, True])
def test_a_space_before_a_text_is_as_the_settings_say(tmp_path, space):
    made = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "Ġ": 1}, []))
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=not space)
    made.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.load(folder(tmp_path, tokenizer_config_json={"add_prefix_space": space}))
    assert ours.encode("a") == [1, 0][not space :]
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="never" if space else "always")
    made.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(
        ValueError, match=rf"got add_prefix_space {space}, and a tokenizer.json with prepend_scheme"
    ):
        Tokenizer.load(tmp_path)


@pytest.fixture(scope="module")
def piece_model():
    sentencepiece = pytest.importorskip("sentencepiece")
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["once upon a time there was"] * 9),
        model_writer=made,
        vocab_size=40,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return made.getvalue()


def test_a_sentencepiece_model_knows_the_tokens_added_beside_it(tmp_path, piece_model):
    (tmp_path / "tokenizer.model").write_bytes(piece_model)
    plain = Tokenizer.load(tmp_path)
    size, tokens = plain.vocabulary, plain.encode("a time")
    folder(
        tmp_path,
        added_tokens_json={"<|im_end|>": size},
        tokenizer_config_json={"bos_token": "<s>", "add_bos_token": True},
    )
    ours = Tokenizer.load(tmp_path)
    assert (ours.encode("a time"), ours.before, ours.token("<|im_end|>")) == (
        tokens,
        (plain.token("<s>"),),
        size,
    )
    assert ours.decode([*tokens, size, *tokens]) == "a time<|im_end|>a time"
    for text in ("a<|im_end|>", "a <s>"):
        with pytest.raises(
            ValueError,
            match=r"got a text with '<.*', which is a token of its own there; expected texts without",
        ):
            ours.encode(text)
    folder(tmp_path, tokenizer_config_json={"tokenizer_class": "XLMRobertaTokenizer"})
    with pytest.raises(
        ValueError, match=r"got tokenizer.model of a XLMRobertaTokenizer, whose rule is not known here"
    ):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram", "sentencepiece"])
def test_a_number_without_a_piece_has_no_text_and_one_below_zero_is_refused(tmp_path, kind, piece_model):
    if kind == "sentencepiece":
        (tmp_path / "tokenizer.model").write_bytes(piece_model)
        ours = Tokenizer.load(tmp_path)
    else:
        ours = Tokenizer.train(["a time there was"] * 9, vocabulary=280, kind=kind)
    tokens = ours.encode("a time")
    assert ours.decode([*tokens, ours.vocabulary, 2**40]) == ours.decode(tokens) == "a time"
    with pytest.raises(
        ValueError, match=r"got the token -1; expected 0 to .*Leave out numbers that are no token"
    ):
        ours.decode([*tokens, -1])


def test_every_setting_that_transformers_reads_is_followed_refused_or_known_to_be_harmless():
    """Of the classes whose files are read here, by their own signatures."""
    transformers = pytest.importorskip("transformers")
    from jaxmodels.data.formats import tokenizer_settings

    known = {
        *NAMED,
        *SWITCHES,
        *REFUSED,
        "vocab",
        "merges",
        "kwargs",
        "self",
        "vocab_file",
        "merges_file",
        "tokenizer_file",
    }
    known |= {"extra_ids", "additional_special_tokens", "_spm_precompiled_charsmap", "trim_offsets", "args"}
    for name in ("Bert", "GPT2", "Roberta", "Llama", "Qwen2", "T5"):
        asked = set(inspect.signature(getattr(transformers, f"{name}Tokenizer").__init__).parameters)
        assert all(one in known or one in tokenizer_settings.__doc__ for one in asked), (name, asked - known)
