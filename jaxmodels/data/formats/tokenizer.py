"""Texts as numbers and back: tokenizers by the libraries that made their files, behind one interface.

A tokenizer comes from a file (tokenizer.json, vocab.txt, vocab.json with merges.txt, a SentencePiece model, a
tiktoken list), with what the files beside it say (see data/tokenizer_settings.py), or is trained on texts.
`tokenizers` does the work, for SentencePiece its own library: the numbers are exactly theirs.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple, TypeVar

from jaxmodels import choices
from jaxmodels.data.formats.json_file import parse_object
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
from jaxmodels.data.formats.tokenizer_settings import TAKE, Added, Settings, read_settings
from jaxmodels.data.learned import learned

__all__ = ["CL100K", "GPT2", "Tokenizer"]

Kind = Literal["bpe", "wordpiece", "unigram"]

UNKNOWN = "[UNK]"
FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
)  # of a folder; the first there is
T = TypeVar("T")


class Tokenizer(NamedTuple):
    """A text's tokens, and the text of tokens. encode adds nothing: no token for the beginning or the end."""

    encode: Callable[[str], list[int]]
    encode_many: Callable[[Sequence[str]], list[list[int]]]
    decode: Callable[[Sequence[int]], str]
    token: Callable[[str], int | None]  # the number of a piece; None where there is no such piece
    vocabulary: int  # every number is below it
    save: Callable[[str | os.PathLike[str]], None]
    name: str = "tokenizer.json"  # of the file that save() writes, where load() finds it in a folder
    # What a model is to be given before and after the numbers of a text; None where the files do not say.
    before: tuple[int, ...] | None = None
    after: tuple[int, ...] | None = None

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, pattern: str = GPT2) -> Tokenizer:
        """The tokenizer of a file, or of a folder that holds one. pattern: how a tiktoken list cuts texts."""
        path = Path(path)
        if path.is_dir():
            found = next((path / name for name in FILES if (path / name).is_file()), None)
            if found is None:
                raise FileNotFoundError(
                    f"there is no tokenizer in {path}; wanted one of {', '.join(FILES)}; give its file"
                )
            path = found
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}; wanted a tokenizer; check the path")
        if path.stat().st_size > LIMIT:
            raise ValueError(
                f"{path}: got {path.stat().st_size:,} bytes; expected at most {LIMIT:,}. It is no tokenizer"
            )
        _library(
            "sentencepiece" if path.suffix == ".model" else "tokenizers"
        )  # where it is missing, the file is not broken
        settings = (
            read_settings(path.parent) if path.name in FILES else Settings(path.parent, {}, None, False, ())
        )
        check_rule(path, settings)
        try:
            made = (
                _sentencepiece(path, settings) if path.suffix == ".model" else _open(path, pattern, settings)
            )
        except OSError:
            raise
        except (
            BaseException
        ) as error:  # the libraries raise bare Exception for a broken file, and Rust's panics not even that
            if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
                raise
            raise ValueError(
                f"{path} is no tokenizer that can be read ({error}); get the file again"
            ) from error
        return made if isinstance(made, Tokenizer) else _wrap(_told(made, path, settings), settings)

    @classmethod
    def train(
        cls, texts: Iterable[str], *, vocabulary: int = 8192, kind: Kind = "bpe", special: Sequence[str] = ()
    ) -> Tokenizer:
        """A tokenizer of that many tokens at most, trained on the texts; bpe works on bytes, so that no text is lost.

        special: tokens such as "<|end|>", which get the first numbers and are never cut, wherever they stand in a text.
        """
        choices.check("tokenizer", "kind", kind, Kind)
        if isinstance(special, str) or not all(isinstance(x, str) and x.strip() == x != "" for x in special):
            raise ValueError(
                f"tokenizer: got special={special!r}; expected texts without space at their ends. Give a list"
            )
        if len(set(special)) < len(special):
            raise ValueError(
                f"tokenizer: got special={list(special)}; expected each token once. Leave out the second"
            )
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

    @classmethod
    def learned(cls, name: str, make: Callable[[], Tokenizer]) -> Tokenizer:
        """The tokenizer that make() trained on the data of this run, from the run's folder later: see data/learned.py."""

        def text() -> str:
            with TemporaryDirectory() as folder:
                made = make()
                made.save(Path(folder) / made.name)
                return (Path(folder) / made.name).read_text("utf-8")

        return _wrap(_library().Tokenizer.from_str(learned(name, text)))


def _library(name: str = "tokenizers") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name} is not installed, which reads and makes tokenizers; pip install 'jaxmodels[text]'"
        ) from error


def _wrap(made: Any, settings: Settings | None = None) -> Tokenizer:
    made.no_truncation()  # a file may ask for texts of one length
    made.no_padding()
    vocabulary = 1 + max(made.get_vocab().values(), default=-1)
    before, after = _around(made, settings)
    return Tokenizer(
        encode=lambda text: _guarded(lambda: made.encode(text, add_special_tokens=False).ids),
        encode_many=lambda texts: _guarded(
            lambda: [one.ids for one in made.encode_batch(list(texts), add_special_tokens=False)]
        ),
        decode=lambda tokens: _guarded(
            lambda: made.decode(known(tokens, vocabulary), skip_special_tokens=False)
        ),
        token=made.token_to_id,
        vocabulary=vocabulary,
        save=lambda path: made.save(str(path)),
        before=before,
        after=after,
    )


def known(tokens: Iterable[int], vocabulary: int) -> list[int]:
    """Those tokens that have a text: models may have more numbers than their tokenizer, so that matrices are even."""
    found = [int(one) for one in tokens]
    if found and min(found) < 0:
        raise ValueError(
            f"got the token {min(found)}; expected 0 to {vocabulary - 1:,}. Leave out what stands for no token"
        )
    return [one for one in found if one < vocabulary]


def _guarded(run: Callable[[], T]) -> T:
    """The same, with the library's bare Exception, and a panic of Rust, which is not even that, as a ValueError."""
    try:
        return run()
    except BaseException as error:
        if isinstance(
            error, ValueError | TypeError | MemoryError | KeyboardInterrupt | SystemExit | GeneratorExit
        ):
            raise
        raise ValueError(
            f"the tokenizer broke down ({error}); expected one that is sound. Get its file again, or try a shorter text"
        ) from error


def _open(path: Path, pattern: str, settings: Settings) -> Any:
    library = _library()
    if path.name == "vocab.txt":
        lines = (
            path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
        )  # splitlines() knows more ends of lines
        words = {piece: i for i, piece in enumerate(lines)}
        return word_pieces(library, with_added(words, settings), settings)
    if path.name == "vocab.json":
        return pairs(library, path, settings)
    if path.suffix == ".tiktoken":
        return byte_level(library, *ranks_of(path), pattern)
    text = path.read_bytes()
    parse_object(text, path)
    return library.Tokenizer.from_str(text.decode())


def _told(made: Any, path: Path, settings: Settings) -> Any:
    """A tokenizer with what the files beside its own say."""
    library = _library()
    present = {token.content for token in made.get_added_tokens_decoder().values()}
    for one in settings.added:
        if one.content not in present and (
            one.number is not None or made.token_to_id(one.content) is not None
        ):
            made.add_tokens([library.AddedToken(one.content, **_flags(one))])
        if one.number is not None and made.token_to_id(one.content) != one.number:
            raise ValueError(
                f"{settings.folder}: got the added token {one.content!r} as number {one.number}, and {path.name} with "
                f"{made.token_to_id(one.content)} for it; expected one number. {TAKE}, or get the files of one release"
            )
    if settings.switch("split_special_tokens"):
        made.encode_special_tokens = True
    if path.name == "tokenizer.json":
        _normalise(made, settings)
        _prefix(made, settings)
    return made


def _flags(one: Added) -> dict[str, bool]:
    special = one.flags.get("special", False)
    return {"normalized": not special, **one.flags}


def _normalise(made: Any, settings: Settings) -> None:
    """BERT's settings of letters, where a file has its normaliser."""
    normaliser = made.normalizer
    if not isinstance(normaliser, _library().normalizers.BertNormalizer):
        return
    names = {
        "do_lower_case": "lowercase",
        "strip_accents": "strip_accents",
        "tokenize_chinese_chars": "handle_chinese_chars",
    }
    for theirs, name in names.items():
        if settings.switch(theirs) is not None:
            setattr(normaliser, name, settings.switch(theirs))
    made.normalizer = normaliser


def _prefix(made: Any, settings: Settings) -> None:
    """Whether a text is read as if a space came first."""
    wanted, cut, library = settings.switch("add_prefix_space"), made.pre_tokenizer, _library()
    if wanted is None or cut is None:
        return
    if isinstance(cut, library.pre_tokenizers.ByteLevel):
        cut.add_prefix_space = wanted
        made.pre_tokenizer = cut
    elif isinstance(cut, library.pre_tokenizers.Metaspace) and (cut.prepend_scheme != "never") != wanted:
        raise ValueError(
            f"{settings.folder / 'tokenizer_config.json'}: got add_prefix_space {wanted}, and a tokenizer.json with "
            f"prepend_scheme {cut.prepend_scheme!r}; expected both to say the same. {TAKE}"
        )


def _around(made: Any, settings: Settings | None) -> tuple[tuple[int, ...] | None, tuple[int, ...] | None]:
    """What stands before and after a text: what tokenizer_config.json says, else what the file's own template does."""
    before: tuple[int, ...] | None = None
    after: tuple[int, ...] | None = None
    if made.post_processor is not None:
        plain = _guarded(lambda: made.encode("a", add_special_tokens=False).ids)
        whole = _guarded(lambda: made.encode("a", add_special_tokens=True).ids)
        at = next((i for i in range(len(whole) - len(plain) + 1) if whole[i : i + len(plain)] == plain), None)
        if at is not None:
            before, after = tuple(whole[:at]), tuple(whole[at + len(plain) :])
    if settings is None:
        return before, after
    return _said(settings, "bos", before, made.token_to_id), _said(settings, "eos", after, made.token_to_id)


def _said(
    settings: Settings, name: str, found: tuple[int, ...] | None, token: Callable[[str], int | None]
) -> tuple[int, ...] | None:
    """What add_bos_token or add_eos_token says, else what was found."""
    wanted = settings.switch(f"add_{name}_token")
    if wanted is None:
        return found
    if not wanted:
        return ()
    piece = settings.special(f"{name}_token")
    number = None if piece is None else token(piece)
    if number is None:
        return found  # the model's own number, where config.json has one
    return (number,)


def _sentencepiece(path: Path, settings: Settings) -> Tokenizer:
    content = path.read_bytes()
    if not content:  # the library takes this for a processor that is to be loaded later
        raise ValueError("it is empty")
    made = _library("sentencepiece").SentencePieceProcessor(model_proto=content)
    size = made.get_piece_size()
    extra = (
        {n: f"<extra_id_{99 - n + size}>" for n in range(size, size + 100)}
        if settings.kind in ("T5", "MT5")
        else {}
    )
    extra |= {
        one.number: one.content for one in settings.added if one.number is not None and one.number >= size
    }
    special = {*extra.values(), *(one.content for one in settings.added)}

    def plain(text: str) -> str:
        found = next((one for one in special if one in text), None)
        if found is not None:
            raise ValueError(
                f"{path}: got a text with {found!r}, which is a token of its own there; expected texts without such tokens, "
                f"where there is no tokenizer.json. {TAKE}, or leave it out of the text"
            )
        return text

    def decode(tokens: Sequence[int]) -> str:
        parts: list[str] = []
        run: list[int] = []
        for one in [*known(tokens, max(extra, default=size - 1) + 1), None]:
            if one is not None and one not in extra:
                run += [one] if one < size else []
                continue
            parts.append(made.decode(run) if run else "")
            run = []
            parts.append("" if one is None else extra[one])
        return "".join(parts)

    def save(out: str | os.PathLike[str]) -> None:
        Path(out).write_bytes(made.serialized_model_proto())

    def token(piece: str) -> int | None:
        number = made.piece_to_id(piece)
        if made.id_to_piece(number) == piece:
            return number
        return next((number for number, content in extra.items() if content == piece), None)

    return Tokenizer(
        encode=lambda text: made.encode(plain(text)),
        encode_many=lambda texts: made.encode([plain(text) for text in texts]),
        decode=decode,
        token=token,
        vocabulary=size,
        save=save,
        name="tokenizer.model",
        before=_said(settings, "bos", None, token),
        after=_said(settings, "eos", None, token),
    )


def _train(texts: Iterable[str], vocabulary: int, kind: Kind, special: list[str]) -> Any:
    library = _library()
    models, trainers, cuts = library.models, library.trainers, library.pre_tokenizers
    made: Any
    if kind == "bpe":
        made = library.Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = (
            cuts.ByteLevel(add_prefix_space=False),
            library.decoders.ByteLevel(),
        )
        alphabet = cuts.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=special, show_progress=False
        )
    elif kind == "wordpiece":
        made = library.Tokenizer(models.WordPiece(unk_token=UNKNOWN))
        made.normalizer, made.pre_tokenizer = library.normalizers.BertNormalizer(), cuts.BertPreTokenizer()
        made.decoder = library.decoders.WordPiece()
        special = list(dict.fromkeys([*special, "[PAD]", UNKNOWN, "[CLS]", "[SEP]", "[MASK]"]))
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocabulary, special_tokens=special, show_progress=False
        )
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
