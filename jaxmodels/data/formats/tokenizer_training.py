"""Tokenizers trained on texts, by the library `tokenizers`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from jaxmodels import choices
from jaxmodels.data.formats.tokenizer_library import library

Kind = Literal["bpe", "wordpiece", "unigram"]

UNKNOWN = "[UNK]"


def trained(texts: Iterable[str], vocabulary: int, kind: str, special: Sequence[str]) -> Any:
    """The library's tokenizer of at most `vocabulary` tokens; see Tokenizer.train."""
    _check(vocabulary, kind, special)
    tokenizers = library()
    models, trainers, pre_tokenizers = tokenizers.models, tokenizers.trainers, tokenizers.pre_tokenizers
    options: dict[str, Any] = {"vocab_size": vocabulary, "show_progress": False}
    if kind == "bpe":
        tokenizer = tokenizers.Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = tokenizers.decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(initial_alphabet=alphabet, special_tokens=list(special), **options)
    elif kind == "wordpiece":
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        tokenizer.normalizer = tokenizers.normalizers.BertNormalizer()
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = tokenizers.decoders.WordPiece()
        tokens = list(dict.fromkeys([*special, "[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]))
        trainer = trainers.WordPieceTrainer(special_tokens=tokens, **options)
    else:
        tokenizer = tokenizers.Tokenizer(models.Unigram())
        tokenizer.normalizer = tokenizers.normalizers.NFKC()
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = tokenizers.decoders.Metaspace()
        tokens = list(dict.fromkeys([*special, "<unk>"]))
        trainer = trainers.UnigramTrainer(special_tokens=tokens, unk_token="<unk>", **options)
    tokenizer.train_from_iterator(texts, trainer)
    if tokenizer.get_vocab_size() < 2:
        raise ValueError("tokenizer: got no text to train on; expected some. Give more texts")
    return tokenizer


def _check(vocabulary: int, kind: str, special: Sequence[str]) -> None:
    choices.check("tokenizer", "kind", kind, Kind)
    if isinstance(special, str) or not all(isinstance(x, str) and x.strip() == x != "" for x in special):
        raise ValueError(
            f"tokenizer: got special={special!r}; expected texts without space at their ends. Give a list"
        )
    if len(set(special)) < len(special):
        raise ValueError(
            f"tokenizer: got special={list(special)}; expected each token once. Remove the second"
        )
    if kind == "bpe" and not "".join(special).isascii():
        raise ValueError(
            f"tokenizer: got special={list(special)} for bpe; expected ASCII alone, because its decoder "
            "takes other characters for bytes. Choose other ones"
        )
    least = 257 + len(special)
    if vocabulary < least:
        raise ValueError(
            f"tokenizer: got a vocabulary of {vocabulary}; expected at least {least}: the special tokens, "
            "the bytes and one pair. Raise it"
        )
