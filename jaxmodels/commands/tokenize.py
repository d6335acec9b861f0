"""jaxmodels tokenize: text files become token files of both splits, by a trained or loaded tokenizer."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jaxmodels import choices

Kind = Literal["bpe", "wordpiece", "unigram"]


@dataclass(frozen=True, kw_only=True)
class TokenizeOptions:
    """How texts become tokens."""

    tokenizer: str | None = None
    """A tokenizer's file or folder; by default one is trained on the texts."""
    vocabulary: int = 8192
    """Tokens of the trained tokenizer."""
    kind: Kind = "bpe"
    """Kind of the trained tokenizer; bpe works on bytes, so that no text is lost."""
    special: tuple[str, ...] = ()
    """Tokens such as "<|end|>" that the trained tokenizer has first and never splits."""
    pattern: str = "**/*.txt"
    """Which files of a folder are texts."""
    fraction: float = 0.1
    """Share of the files that are for validation."""


def tokenize(
    where: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tokenizer: str | None = TokenizeOptions.tokenizer,
    vocabulary: int = TokenizeOptions.vocabulary,
    kind: Kind = TokenizeOptions.kind,
    special: Sequence[str] = TokenizeOptions.special,
    pattern: str = TokenizeOptions.pattern,
    fraction: float = TokenizeOptions.fraction,
) -> dict[str, Any]:
    """Writes the tokenizer, train.npy and validation.npy into out; returns counts of files, bytes and tokens.

    where: a folder, whose files match the pattern (hidden files do not: see data/folders.py), or a file. A
        file is a document.
    tokenizer: its file; None trains one on the training split, with these special tokens.
    fraction: about this share of the files is for validation: a hash of the path decides.

    WindowPipeline takes open_tokens(out/train.npy), and next_token() takes each split's "bytes_per_token".
    """
    import numpy as np

    from jaxmodels.data.formats.byte_text import splits
    from jaxmodels.data.formats.token_files import write_tokens
    from jaxmodels.data.formats.tokenizer import Tokenizer
    from jaxmodels.runs.files import write_text

    choices.check("tokenize", "kind", kind, Kind)
    out = Path(out)
    if not Path(where).exists():
        raise ValueError(f"tokenize: got {where}, which does not exist; expected text files. Check the path")
    files = splits(where, pattern=pattern, fraction=fraction)
    if not files["train"]:
        raise ValueError(
            f"tokenize: got {len(files['validation'])} files, all of them for validation; expected one or "
            f"more to train. Add files or lower fraction, {fraction}"
        )
    if tokenizer and special:
        raise ValueError(
            f"tokenize: got special tokens for the tokenizer {tokenizer}; expected them only where one is "
            "trained. Leave one of the two out"
        )
    if tokenizer:
        encoder = Tokenizer.load(tokenizer)
    else:
        encoder = Tokenizer.train(_texts(files["train"]), vocabulary=vocabulary, kind=kind, special=special)
    out.mkdir(parents=True, exist_ok=True)
    encoder.save(out / encoder.name)
    facts: dict[str, Any] = {"vocabulary": encoder.vocabulary}
    dtype = np.uint16 if encoder.vocabulary <= 2**16 else np.uint32
    for split, paths in files.items():
        if paths:
            documents = (encoder.encode(text) for text in _texts(paths))
            tokens = write_tokens(out / f"{split}.npy", documents, dtype)
            size = sum(path.stat().st_size for path in paths)
            facts |= {f"{split}_files": len(paths), f"{split}_bytes": size, f"{split}_tokens": tokens}
            facts[f"{split}_bytes_per_token"] = round(size / max(1, tokens), 4)
    write_text(out / "facts.json", json.dumps(facts, indent=2) + "\n")
    return facts


def _texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        try:
            yield path.read_bytes().decode()  # read_text() would change line ends
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: got no UTF-8 text ({error}); expected text. Convert it or leave it out"
            ) from error
