"""Texts as numbers and back: tokenizers by the libraries that made their files, behind one interface.

A tokenizer comes from a file (tokenizer.json, vocab.txt, vocab.json with merges.txt, a SentencePiece model, a tiktoken
list) or is trained on texts. `tokenizers` does the work, for SentencePiece its own library: the numbers are exactly theirs.
"""

from __future__ import annotations

import base64
import binascii
import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, NamedTuple

Kind = Literal["bpe", "wordpiece", "unigram"]

# How a text is cut before pairs are merged: GPT-2's expression, which Whisper takes for both of its lists, and that of the
# encoding cl100k_base.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
UNKNOWN = "[UNK]"


class Tokenizer(NamedTuple):
    """A text's tokens, and the text of tokens. encode adds nothing: no token for the beginning or the end."""

    encode: Callable[[str], list[int]]
    encode_many: Callable[[Sequence[str]], list[list[int]]]
    decode: Callable[[Sequence[int]], str]
    token: Callable[[str], int | None]  # the number of a piece; None where there is no such piece
    vocabulary: int  # every number is below it
    save: Callable[[str | os.PathLike[str]], None]
    name: str = "tokenizer.json"  # of the file that save() writes, where load() finds it in a folder

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, pattern: str = GPT2) -> Tokenizer:
        """The tokenizer of a file, or of a folder that holds one. pattern: how a tiktoken list cuts texts."""
        path = Path(path)
        if path.is_dir():
            names = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
            found = next((path / name for name in names if (path / name).is_file()), None)
            if found is None:
                raise FileNotFoundError(f"there is no tokenizer in {path}; wanted one of {', '.join(names)}; give its file")
            path = found
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; wanted a tokenizer; check the path")
        _library("sentencepiece" if path.suffix == ".model" else "tokenizers")  # where it is missing, the file is not broken
        try:
            if path.suffix == ".model":
                return _sentencepiece(path)
            return _wrap(_open(path, pattern))
        except OSError:
            raise
        except Exception as error:  # the libraries raise bare Exception for a broken file
            raise ValueError(f"{path} is no tokenizer that can be read ({error}); get the file again") from error

    @classmethod
    def train(
        cls, texts: Iterable[str], *, vocabulary: int = 8192, kind: Kind = "bpe", special: Sequence[str] = ()
    ) -> Tokenizer:
        """A tokenizer of that many tokens at most, trained on the texts; bpe works on bytes, so that no text is lost.

        special: tokens such as "<|end|>", which get the first numbers and are never cut, wherever they stand in a text.
        """
        if isinstance(special, str) or not all(isinstance(x, str) and x.strip() == x != "" for x in special):
            raise ValueError(f"tokenizer: got special={special!r}; expected texts without space at their ends. Give a list")
        if len(set(special)) < len(special):
            raise ValueError(f"tokenizer: got special={list(special)}; expected each token once. Leave out the second")
        if kind == "bpe" and not "".join(special).isascii():
            raise ValueError(
                f"tokenizer: got special={list(special)} for bpe; expected ASCII alone, since its decoder takes other "
                "characters for bytes. Choose other ones"
            )
        least = 257 + len(special)
        if vocabulary < least:
            raise ValueError(
                f"the vocabulary is {vocabulary}; wanted at least {least}, the special tokens, the bytes and one pair; "
                "raise it"
            )
        return _wrap(_train(texts, vocabulary, kind, list(special)))


def _library(name: str = "tokenizers") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name} is not installed, which reads and makes tokenizers; pip install 'jaxmodels[text]'"
        ) from error


def _wrap(made: Any) -> Tokenizer:
    made.no_truncation()  # a file may ask for texts of one length
    made.no_padding()
    return Tokenizer(
        encode=lambda text: made.encode(text, add_special_tokens=False).ids,
        encode_many=lambda texts: [one.ids for one in made.encode_batch(list(texts), add_special_tokens=False)],
        decode=lambda tokens: made.decode(list(tokens), skip_special_tokens=False),
        token=made.token_to_id,
        vocabulary=1 + max(made.get_vocab().values(), default=-1),
        save=lambda path: made.save(str(path)),
    )


def _open(path: Path, pattern: str) -> Any:
    library = _library()
    if path.name == "vocab.txt":
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")  # splitlines() knows more ends of lines
        words = {piece: i for i, piece in enumerate(lines)}
        return library.BertWordPieceTokenizer(words, lowercase="The" not in words)._tokenizer
    if path.name == "vocab.json":
        merges = path.with_name("merges.txt")
        if not merges.is_file():
            raise FileNotFoundError(f"there is no file {merges}, which belongs to {path}; get both")
        vocabulary, pairs = library.models.BPE.read_file(str(path), str(merges))
        return _byte_level(vocabulary, pairs, GPT2)
    if path.suffix == ".tiktoken":
        return _byte_level(*_ranks(path), pattern)
    return library.Tokenizer.from_str(path.read_text(encoding="utf-8"))


def _byte_level(vocabulary: dict[str, int], merges: list[tuple[str, str]], pattern: str) -> Any:
    """Byte-pair encoding as GPT-2 has it: the text is cut, and the bytes of each part are merged."""
    library = _library()
    made = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False))
    cut = library.pre_tokenizers.Split(library.Regex(pattern), behavior="isolated")
    as_bytes = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.pre_tokenizer = library.pre_tokenizers.Sequence([cut, as_bytes])
    made.decoder = library.decoders.ByteLevel()
    return made


def _characters() -> dict[int, str]:
    """GPT-2's character for each byte: itself where it can be seen, else one from 256 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def _ranks(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merges of a tiktoken list, which gives the ranks of pieces and leaves the merges to be found.

    The merge that makes a piece joins the two parts which the merges of lower rank leave of it.
    """
    ranks: dict[bytes, int] = {}
    for line in path.read_bytes().splitlines():
        try:
            piece, rank = line.split()
            ranks[base64.b64decode(piece)] = int(rank)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"the line {line[:40]!r} is no piece and rank") from error
    ranks.pop(b"", None)  # a list that OpenAI publishes has one such line, which no text needs
    character = _characters()
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise ValueError("a byte has no rank")

    def text(piece: bytes) -> str:
        return "".join(character[byte] for byte in piece)

    merges = []
    for whole, place in sorted(ranks.items(), key=lambda item: item[1]):
        if len(whole) > 1:
            parts = _parts(whole, ranks, place)
            if len(parts) != 2:
                raise ValueError(f"the piece {whole!r} is not made of two earlier ones")
            merges.append((text(parts[0]), text(parts[1])))
    return {text(whole): place for whole, place in ranks.items()}, merges


def _parts(piece: bytes, ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """What merges of lower rank than the limit leave of a piece."""
    parts = [bytes([byte]) for byte in piece]
    while True:
        found = [(ranks.get(a + b, limit), i) for i, (a, b) in enumerate(pairwise(parts))]
        rank, i = min(found, default=(limit, 0))
        if rank >= limit:
            return parts
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


def _sentencepiece(path: Path) -> Tokenizer:
    content = path.read_bytes()
    if not content:  # the library takes this for a processor that is to be loaded later
        raise ValueError("it is empty")
    made = _library("sentencepiece").SentencePieceProcessor(model_proto=content)

    def save(out: str | os.PathLike[str]) -> None:
        Path(out).write_bytes(made.serialized_model_proto())

    def token(piece: str) -> int | None:
        number = made.piece_to_id(piece)
        return number if made.id_to_piece(number) == piece else None

    return Tokenizer(
        encode=lambda text: made.encode(text),
        encode_many=lambda texts: made.encode(list(texts)),
        decode=lambda tokens: made.decode([int(one) for one in tokens]),
        token=token,
        vocabulary=made.get_piece_size(),
        save=save,
        name="tokenizer.model",
    )


def _train(texts: Iterable[str], vocabulary: int, kind: Kind, special: list[str]) -> Any:
    library = _library()
    models, trainers, cuts = library.models, library.trainers, library.pre_tokenizers
    made: Any
    if kind == "bpe":
        made = library.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = cuts.ByteLevel(add_prefix_space=False), library.decoders.ByteLevel()
        alphabet = cuts.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=special, show_progress=False
        )
    elif kind == "wordpiece":
        made = library.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        made.normalizer, made.pre_tokenizer = library.normalizers.BertNormalizer(), cuts.BertPreTokenizer()
        made.decoder = library.decoders.WordPiece()
        special = list(dict.fromkeys([*special, "[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]))
        trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=special, show_progress=False)
    elif kind == "unigram":
        made = library.Tokenizer(models.Unigram())
        made.normalizer, made.pre_tokenizer = library.normalizers.NFKC(), cuts.Metaspace()
        made.decoder = library.decoders.Metaspace()
        special = list(dict.fromkeys([*special, "<unk>"]))
        trainer = trainers.UnigramTrainer(
            vocab_size=vocabulary, special_tokens=special, unk_token="<unk>", show_progress=False
        )
    else:
        raise ValueError(f"came the kind {kind!r}; wanted bpe, wordpiece or unigram")
    made.train_from_iterator(texts, trainer)
    if made.get_vocab_size() < 2:
        raise ValueError("there is no text to learn a tokenizer from; give more")
    return made
