"""Rules by which a text is split into pieces, for tokenizer files that hold the pieces alone."""

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

# How a text is split before pairs are merged: GPT-2's expression, which Whisper uses for both of its lists,
# that of the encoding cl100k_base, and Qwen's.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
CL100K = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}" + _REST
QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}" + _REST

LIMIT = 256 << 20  # the most bytes of a file


def check_rule(path: Path, settings: Settings) -> None:
    """Raises ValueError where a file without its own rule needs one that is not known here."""
    if path.suffix == ".model" and settings.named:
        settings.class_among(SENTENCEPIECE_RULE, path.name)
    if path.name == "vocab.txt" and settings.named:
        settings.class_among(BERT_RULE, path.name)
    if path.name == "vocab.json":
        settings.class_among((*GPT2_RULE, *QWEN_RULE), "vocab.json and merges.txt")


def word_pieces(library: Any, words: dict[str, int], settings: Settings) -> Any:
    """BERT's rule; without a setting, a vocabulary with capital letters is a cased one."""
    lower = settings.switch("do_lower_case")
    if lower is None:
        lower = not any(piece != piece.lower() for piece in words if not piece.startswith("["))
    roles = ("unk_token", "sep_token", "cls_token", "pad_token", "mask_token")
    special = {name: settings.special(name) for name in roles}
    chinese = settings.switch("tokenize_chinese_chars")
    tokenizer = library.BertWordPieceTokenizer(
        words,
        lowercase=lower,
        strip_accents=settings.switch("strip_accents"),
        handle_chinese_chars=chinese is not False,
        **{name: token for name, token in special.items() if token is not None},
    )
    return tokenizer._tokenizer


def with_added(vocabulary: dict[str, int], settings: Settings) -> dict[str, int]:
    """The pieces with those that other files add, under the numbers in those files."""
    pieces = {number: piece for piece, number in vocabulary.items()}
    for token in settings.added:
        if token.number is None:
            continue
        same_number = vocabulary.get(token.content, token.number) == token.number
        same_piece = pieces.get(token.number, token.content) == token.content
        if not (same_number and same_piece):
            raise ValueError(
                f"{token.content!r} is added as number {token.number}, but that is another piece, or has "
                "another number"
            )
        vocabulary[token.content] = token.number
    return vocabulary


def pairs(library: Any, path: Path, settings: Settings) -> Any:
    """vocab.json with merges.txt: GPT-2's rule, or Qwen's."""
    merges = path.with_name("merges.txt")
    if not merges.is_file():
        raise FileNotFoundError(f"there is no file {merges}: got {path} alone; expected both. Get them")
    if merges.stat().st_size > LIMIT:
        raise ValueError(f"merges.txt has {merges.stat().st_size:,} bytes, more than {LIMIT:,}")
    parse_object(
        path.read_bytes(), path
    )  # refuses two numbers for one piece, of which the library takes the last
    vocabulary, pair_list = library.models.BPE.read_file(str(path), str(merges))
    if any(piece.endswith("</w>") for piece in vocabulary):
        raise ValueError("its pieces end in </w>, as those of CLIP and GPT-1, whose rule is not known here")
    vocabulary, space = with_added(vocabulary, settings), bool(settings.switch("add_prefix_space"))
    if settings.kind in QWEN_RULE:
        if space:
            raise ValueError("tokenizer_config.json sets add_prefix_space, which is not supported for Qwen")
        tokenizer = byte_level(library, vocabulary, pair_list, QWEN)
        tokenizer.normalizer = library.normalizers.NFC()
        return tokenizer
    tokenizer = byte_level(library, vocabulary, pair_list, GPT2)
    if space:
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def byte_level(
    library: Any,
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    pattern: str,
) -> Any:
    """Byte-pair encoding as in GPT-2: the text is split, and the bytes of each part are merged."""
    tokenizer = library.Tokenizer(library.models.BPE(vocab=vocabulary, merges=merges, fuse_unk=False))
    split = library.pre_tokenizers.Split(library.Regex(pattern), behavior="isolated")
    as_bytes = library.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = library.pre_tokenizers.Sequence([split, as_bytes])
    tokenizer.decoder = library.decoders.ByteLevel()
    return tokenizer


def _characters() -> dict[int, str]:
    """GPT-2's character for each byte: itself where it is visible, else one from 256 on."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in visible]
    return {byte: chr(byte) for byte in visible} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def ranks_of(path: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """The vocabulary and the merges of a tiktoken list, which holds the ranks of pieces and not the merges.

    The merge that makes a piece joins the two parts into which the merges of lower rank divide it.
    """
    ranks: dict[bytes, int] = {}
    for line in path.read_bytes().splitlines():
        try:
            encoded, number = line.split()
            ranks[base64.b64decode(encoded)] = int(number)
        except (ValueError, binascii.Error) as error:
            raise ValueError(f"a line {line[:40]!r} that is not a piece and its rank") from error
    ranks.pop(b"", None)  # one list of OpenAI has such a line, which no text needs
    character = _characters()
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise ValueError("a list in which a byte has no rank")

    def text(piece: bytes) -> str:
        return "".join(character[byte] for byte in piece)

    merges = []
    for piece, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(piece) > 1:
            parts = _parts(piece, ranks, rank)
            if len(parts) != 2:
                raise ValueError(f"a piece {piece!r} that is not made of two earlier ones")
            merges.append((text(parts[0]), text(parts[1])))
    return {text(piece): rank for piece, rank in ranks.items()}, merges


def _parts(piece: bytes, ranks: dict[bytes, int], limit: int) -> list[bytes]:
    """The parts into which the merges of lower rank than the limit divide a piece."""
    parts = [bytes([byte]) for byte in piece]
    while True:
        merges = [(ranks.get(a + b, limit), i) for i, (a, b) in enumerate(pairwise(parts))]
        rank, i = min(merges, default=(limit, 0))
        if rank >= limit:
            return parts
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
