"""Texts as tokens and back: tokenizers by the libraries that made their files, behind one interface.

A tokenizer comes from a file (tokenizer.json, vocab.txt, vocab.json with merges.txt, a SentencePiece model, a
tiktoken list), with the settings in the files beside it (see data/formats/tokenizer_settings.py), or is
trained on texts. `tokenizers` does the work, and for SentencePiece its own library: the tokens are exactly
theirs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from jaxmodels.data.folders import existing_file
from jaxmodels.data.formats.json_file import parse_object
from jaxmodels.data.formats.sentencepiece_model import SentencePieceModel
from jaxmodels.data.formats.tokenizer_library import guarded, known_tokens, library
from jaxmodels.data.formats.tokenizer_rules import (
    CL100K,
    GPT2,
    LIMIT,
    byte_level,
    check_rule,
    pairs,
    ranks_of,
    with_added,
    word_pieces,
)
from jaxmodels.data.formats.tokenizer_settings import WRITE_TOKENIZER_JSON, Added, Settings, read_settings
from jaxmodels.data.formats.tokenizer_training import Kind, trained
from jaxmodels.runs.learned import learned

__all__ = ["CL100K", "GPT2", "Tokenizer"]

# The files of a folder, the first that exists.
FILES = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")


class Tokenizer(NamedTuple):
    """The tokens of a text, and the text of tokens. encode adds no token for the beginning or the end."""

    encode: Callable[[str], list[int]]
    encode_many: Callable[[Sequence[str]], list[list[int]]]
    decode: Callable[[Sequence[int]], str]
    token: Callable[[str], int | None]  # the number of a piece; None where there is no such piece
    vocabulary: int  # every token is below it
    save: Callable[[str | os.PathLike[str]], None]
    name: str = "tokenizer.json"  # of the file that save() writes, under which load() finds it in a folder
    # The tokens that a model expects before and after those of a text; None where the files do not say.
    before: tuple[int, ...] | None = None
    after: tuple[int, ...] | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, pattern: str = GPT2) -> Tokenizer:
        """The tokenizer of a file, or of a folder with one. pattern: how a tiktoken list splits texts."""
        path = Path(path)
        if path.is_dir():
            files = [path / name for name in FILES if (path / name).is_file()]
            if not files:
                raise FileNotFoundError(
                    f"there is no tokenizer in {path}: got none of {', '.join(FILES)}; expected one. Give "
                    "its file"
                )
            path = files[0]
        existing_file(path, "a tokenizer")
        if path.stat().st_size > LIMIT:
            raise ValueError(
                f"{path}: got {path.stat().st_size:,} bytes; expected at most {LIMIT:,}. It is no tokenizer"
            )
        is_sentencepiece = path.suffix == ".model"
        library("sentencepiece" if is_sentencepiece else "tokenizers")  # missing, it is no fault of the file
        if path.name in FILES:
            settings = read_settings(path.parent)
        else:
            settings = Settings(path.parent, {}, None, False, ())
        check_rule(path, settings)
        try:
            if is_sentencepiece:
                return _of_sentencepiece(SentencePieceModel(path, settings), settings)
            tokenizer = _open(path, pattern, settings)
        except OSError:
            raise
        except BaseException as error:
            # The libraries raise a bare Exception for a broken file, and Rust's panics are not even that.
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            raise ValueError(
                f"{path} is no tokenizer that can be read: got {error}; expected a sound file. Get it again"
            ) from error
        _apply(tokenizer, path, settings)
        return _of_tokenizers(tokenizer, settings)

    @classmethod
    def train(
        cls, texts: Iterable[str], *, vocabulary: int = 8192, kind: Kind = "bpe", special: Sequence[str] = ()
    ) -> Tokenizer:
        """A tokenizer of at most `vocabulary` tokens, trained on texts; bpe works on bytes and loses no text.

        special: tokens such as "<|end|>", which get the first numbers and are never split, wherever they
            stand in a text.
        """
        return _of_tokenizers(trained(texts, vocabulary, kind, special))

    @classmethod
    def learned(cls, name: str, make: Callable[[], Tokenizer]) -> Tokenizer:
        """The tokenizer that make() trained on this run's data, kept in its folder: see runs/learned.py."""

        def text() -> str:
            with TemporaryDirectory() as folder:
                tokenizer = make()
                path = Path(folder) / tokenizer.name
                tokenizer.save(path)
                return path.read_text("utf-8")

        return _of_tokenizers(library().Tokenizer.from_str(learned(name, text)))


def _of_tokenizers(tokenizer: Any, settings: Settings | None = None) -> Tokenizer:
    """The interface of a tokenizer of the library `tokenizers`."""
    tokenizer.no_truncation()  # a file may ask for texts of one length
    tokenizer.no_padding()
    vocabulary = 1 + max(tokenizer.get_vocab().values(), default=-1)
    before, after = _template(tokenizer)
    if settings is not None:
        before = settings.affix("bos", before, tokenizer.token_to_id)
        after = settings.affix("eos", after, tokenizer.token_to_id)

    def encode(text: str) -> list[int]:
        return guarded(lambda: tokenizer.encode(text, add_special_tokens=False).ids)

    def encode_many(texts: Sequence[str]) -> list[list[int]]:
        encodings = guarded(lambda: tokenizer.encode_batch(list(texts), add_special_tokens=False))
        return [encoding.ids for encoding in encodings]

    def decode(tokens: Sequence[int]) -> str:
        return guarded(lambda: tokenizer.decode(known_tokens(tokens, vocabulary), skip_special_tokens=False))

    def save(path: str | os.PathLike[str]) -> None:
        tokenizer.save(str(path))

    token = tokenizer.token_to_id
    return Tokenizer(encode, encode_many, decode, token, vocabulary, save, before=before, after=after)


def _of_sentencepiece(model: SentencePieceModel, settings: Settings) -> Tokenizer:
    return Tokenizer(
        encode=model.encode,
        encode_many=model.encode_many,
        decode=model.decode,
        token=model.token,
        vocabulary=model.size,
        save=model.save,
        name="tokenizer.model",
        before=settings.affix("bos", None, model.token),
        after=settings.affix("eos", None, model.token),
    )


def _open(path: Path, pattern: str, settings: Settings) -> Any:
    """The library's tokenizer of a file."""
    if path.name == "vocab.txt":
        # splitlines() would split at more characters than the end of a line.
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        words = {piece: i for i, piece in enumerate(lines)}
        return word_pieces(library(), with_added(words, settings), settings)
    if path.name == "vocab.json":
        return pairs(library(), path, settings)
    if path.suffix == ".tiktoken":
        return byte_level(library(), *ranks_of(path), pattern)
    content = path.read_bytes()
    parse_object(content, path)
    return library().Tokenizer.from_str(content.decode())


def _apply(tokenizer: Any, path: Path, settings: Settings) -> None:
    """Changes a tokenizer by the settings in the files beside its own."""
    present = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    for token in settings.added:
        has_number = token.number is not None or tokenizer.token_to_id(token.content) is not None
        if token.content not in present and has_number:
            tokenizer.add_tokens([library().AddedToken(token.content, **_flags(token))])
        number = tokenizer.token_to_id(token.content)
        if token.number is not None and number != token.number:
            raise ValueError(
                f"{settings.folder}: got the added token {token.content!r} as number {token.number}, and as "
                f"{number} in {path.name}; expected one number. {WRITE_TOKENIZER_JSON}, or get the files of "
                "one release"
            )
    if settings.switch("split_special_tokens"):
        tokenizer.encode_special_tokens = True
    if path.name == "tokenizer.json":
        _set_normalizer(tokenizer, settings)
        _set_prefix_space(tokenizer, settings)


def _flags(token: Added) -> dict[str, bool]:
    special = token.flags.get("special", False)
    return {"normalized": not special, **token.flags}


def _set_normalizer(tokenizer: Any, settings: Settings) -> None:
    """BERT's settings of letters, where a file has its normalizer."""
    normalizer = tokenizer.normalizer
    if not isinstance(normalizer, library().normalizers.BertNormalizer):
        return
    attributes = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }
    for setting, attribute in attributes.items():
        if settings.switch(setting) is not None:
            setattr(normalizer, attribute, settings.switch(setting))
    tokenizer.normalizer = normalizer


def _set_prefix_space(tokenizer: Any, settings: Settings) -> None:
    """Whether a text is read as if it began with a space."""
    space, pre_tokenizer = settings.switch("add_prefix_space"), tokenizer.pre_tokenizer
    if space is None or pre_tokenizer is None:
        return
    kinds = library().pre_tokenizers
    if isinstance(pre_tokenizer, kinds.ByteLevel):
        pre_tokenizer.add_prefix_space = space
        tokenizer.pre_tokenizer = pre_tokenizer
    elif isinstance(pre_tokenizer, kinds.Metaspace) and (pre_tokenizer.prepend_scheme != "never") != space:
        raise ValueError(
            f"{settings.folder / 'tokenizer_config.json'}: got add_prefix_space {space}, and a "
            f"tokenizer.json with prepend_scheme {pre_tokenizer.prepend_scheme!r}; expected both to agree. "
            f"{WRITE_TOKENIZER_JSON}"
        )


def _template(tokenizer: Any) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """The tokens before and after a text in the file's own template; None where it has none."""
    if tokenizer.post_processor is None:
        return None, None
    text = guarded(lambda: tokenizer.encode("a", add_special_tokens=False).ids)
    full = guarded(lambda: tokenizer.encode("a", add_special_tokens=True).ids)
    for start in range(len(full) - len(text) + 1):
        if full[start : start + len(text)] == text:
            return tuple(full[:start]), tuple(full[start + len(text) :])
    return None, None
