"""Text files as token files: a tokenizer, trained or loaded, and the tokens of both sides of the split."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from jaxmodels import choices
from jaxmodels.data.folders import files_below
from jaxmodels.data.formats.byte_text import held_out
from jaxmodels.data.formats.token_files import write_tokens
from jaxmodels.data.formats.tokenizer import Kind, Tokenizer
from jaxmodels.runs.files import write_text


def tokenize(
    where: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    tokenizer: str | None = None,
    vocabulary: int = 8192,
    kind: Kind = "bpe",
    special: Sequence[str] = (),
    pattern: str = "**/*.txt",
    fraction: float = 0.1,
) -> dict[str, Any]:
    """Writes the tokenizer, train.npy and validation.npy into out; gives counts of files, bytes and tokens.

    where: a folder, whose files match the pattern (what is hidden does not: see data/folders.py), or a file.
    A file is a document. tokenizer: its file; None trains one on the training side, with these special
    tokens. About `fraction` of the files are for validation: a hash of the path says which. For
    WindowPipeline: open_tokens(out/train.npy); "bytes_per_token" of each side is what next_token() wants to
    know.
    """
    choices.check("tokenize", "kind", kind, Kind)
    where, out = Path(where), Path(out)
    files = files_below(where, pattern=pattern) if where.is_dir() else [where]
    if not files or not files[0].is_file():
        raise ValueError(
            f"nothing in {where} matches {pattern}; wanted text files; check the folder and the pattern"
        )
    root = where if where.is_dir() else where.parent
    sides: dict[str, list[Path]] = {"train": [], "validation": []}
    for path in files:
        sides["validation" if held_out(path.relative_to(root).as_posix(), fraction) else "train"].append(path)
    if not sides["train"]:
        raise ValueError(
            f"all {len(files)} files fall on the side of validation; add files or lower fraction, {fraction}"
        )
    if tokenizer and special:
        raise ValueError(
            f"tokenize: got special tokens for the tokenizer {tokenizer}; expected them only where one is trained. Leave "
            "one of the two out"
        )
    if tokenizer:
        made = Tokenizer.load(tokenizer)
    else:
        made = Tokenizer.train(_texts(sides["train"]), vocabulary=vocabulary, kind=kind, special=special)
    out.mkdir(parents=True, exist_ok=True)
    made.save(out / made.name)
    facts: dict[str, Any] = {"vocabulary": made.vocabulary}
    dtype = np.uint16 if made.vocabulary <= 2**16 else np.uint32
    for side, paths in sides.items():
        if paths:
            tokens = write_tokens(out / f"{side}.npy", (made.encode(text) for text in _texts(paths)), dtype)
            size = sum(path.stat().st_size for path in paths)
            facts |= {f"{side}_files": len(paths), f"{side}_bytes": size, f"{side}_tokens": tokens}
            facts[f"{side}_bytes_per_token"] = round(size / max(1, tokens), 4)
    write_text(out / "facts.json", json.dumps(facts, indent=2) + "\n")
    return facts


def _texts(paths: list[Path]) -> Iterator[str]:
    for path in paths:
        try:
            yield path.read_bytes().decode()  # read_text() would change the ends of lines
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path} is no UTF-8 text ({error}); wanted text; convert it or leave it out"
            ) from error
