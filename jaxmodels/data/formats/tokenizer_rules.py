"""Tokenizers' files that hold pieces and not the rule by which a text is cut: the rule comes from elsewhere."""

from __future__ import annotations

import base64
import binascii
from itertools import pairwise
from pathlib import Path
from typing import Any

from jaxmodels.data.formats.json_file import parse_object
from jaxmodels.data.formats.tokenizer_settings import (
    BERT_RULE,
    GPT2_RULE,
    QWEN_RULE,
    SENTENCEPIECE_RULE,
    Settings,
)

# How a text is cut before pairs are merged: GPT-2's expression, which Whisper takes for both of its lists,
# and that of the encoding cl100k_base.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


LIMIT = 256 << 20  # bytes of a file, at most


def check_rule(path: Path, settings: Settings) -> None:
    """Raises a ValueError where a file that does not say its own rule needs one that is not known here."""
    if path.suffix == ".model" and settings.named:
        settings.class_among(SENTENCEPIECE_RULE, path.name)
    if path.name == "vocab.txt" and settings.named:
        settings.class_among(BERT_RULE, path.name)
    if path.name == "vocab.json":
        settings.class_among((*GPT2_RULE, *QWEN_RULE), "vocab.json and merges.txt")


def word_pieces(library: Any, words: dict[str, int], settings: Settings) -> Any:
    """BERT's: a cased vocabulary is known by its capital letters where no file says it."""
    lower = settings.switch("do_lower_case")
    if lower is None:
        lower = not any(piece != piece.lower() for piece in words if not piece.startswith("["))
    roles = ("unk_token", "sep_token", "cls_token", "pad_token", "mask_token")
    special = {name: settings.special(name) for name in roles}
    chinese = settings.switch("tokenize_chinese_chars")
    made = library.BertWordPieceTokenizer(
        words,
        lowercase=lower,
        strip_accents=settings.switch("strip_accents"),
        handle_chinese_chars=chinese is not False,
        **{name: token for name, token in special.items() if token is not None},
    )
    return made._tokenizer


def with_added(vocabulary: dict[str, int], settings: Settings) -> dict[str, int]:
    """The pieces with those that other files add, under the numbers that they give."""
    numbers = {number: piece for piece, number in vocabulary.items()}
    for one in settings.added:
        if one.number is None:
            continue
        if (
            vocabulary.get(one.content, one.number) != one.number
            or numbers.get(one.number, one.content) != one.content
        ):
            raise ValueError(
                f"{one.content!r} is added as number {one.number}, which is another piece's, or has another"
            )
        vocabulary[one.content] = one.number
    return vocabulary


def pairs(library: Any, path: Path, settings: Settings) -> Any:
    """vocab.json with merges.txt: GPT-2's rule, or Qwen's."""
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise FileNotFoundError(f"there is no file {merges}, which belongs to {path}; get both")
    if merges.stat().st_size > LIMIT:
        raise ValueError(f"merges.txt has {merges.stat().st_size:,} bytes, more than {LIMIT:,}")
    parse_object(path.read_bytes(), path)  # the library takes the last of two numbers for one piece
    vocabulary, found = library.models.BPE.read_file(str(path), str(merges))
    if any(piece.endswith("</w>") for piece in vocabulary):
        raise ValueError("its pieces end in </w>, as those of CLIP and GPT-1, whose rule is not known here")
    vocabulary, space = with_added(vocabulary, settings), bool(settings.switch("add_prefix_space"))
    if settings.kind in QWEN_RULE:
        if space:
            raise ValueError("tokenizer_config.json says add_prefix_space, which is not followed for Qwen")
        made = byte_level(library, vocabulary, found, QWEN)
        made.normalizer = library.normalizers.NFC()
        return made
    made = byte_level(library, vocabulary, found, GPT2)
    if space:
        made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    return made


def byte_level(
    library: Any,
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    pattern: str,
) -> Any:
    """Byte-pair encoding as GPT-2 has it: the text is cut, and the bytes of each part are merged."""
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


def ranks_of(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
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
