"""Folders of text files, one folder for each class, read as needed. For language models see byte_text.

Dimensions: T tokens.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from jaxmodels.data.archive import Member, opened
from jaxmodels.data.broken import OnBroken
from jaxmodels.data.example_loader import Change, Example
from jaxmodels.data.formats.class_folder import ClassFolder
from jaxmodels.data.order import Remainder
from jaxmodels.data.split import Part


def text_folder(
    folder: str | os.PathLike[str] | Part,
    *,
    length: int,
    batch: int,
    seed: int | None = None,
    encode: Callable[[bytes], Sequence[int]] | None = None,
    augment: Change | None = None,
    classes: Sequence[str] | None = None,
    remainder: Remainder | None = None,
    workers: int = 0,
    threads: int | None = None,
    on_broken: OnBroken = "raise",
) -> TextFolder:
    """The .txt files in folder/<class>/ and below it, as "tokens", "segments" and "label", int32.

    Tokens and segments are T = length long. folder may be an archive or a part, as for image_folder. Labels
    are indices into `.classes`, as in image_folder. A longer text is truncated; a shorter one gets zeros at
    its end. A token may be 0 too: segments are 1 for the text's tokens and 0 for padding.

    encode: the tokens of a file's bytes; by default a byte is a token. augment, workers and the rest: see
    GrainPipeline. The task is classify(model, inputs="tokens"); with text_table it is "inputs".
    """
    return TextFolder(
        folder,
        classes,
        batch=batch,
        seed=seed,
        remainder=remainder,
        load=_Encode(length, encode),
        augment=augment,
        workers=workers,
        threads=threads,
        on_broken=on_broken,
        spec={
            "tokens": ((length,), np.dtype(np.int32)),
            "segments": ((length,), np.dtype(np.int32)),
            "label": ((), np.dtype(np.int32)),
        },
    )


class TextFolder(ClassFolder):
    """See text_folder."""

    endings = (".txt",)


@dataclass(frozen=True)
class _Encode:
    """(path, label) to an example."""

    length: int
    encode: Callable[[bytes], Sequence[int]] | None

    def __call__(self, item: tuple[str | Member, int]) -> Example:
        path, label = item
        with opened(path) as file:
            if self.encode is None:
                tokens: Sequence[int] | np.ndarray = np.frombuffer(file.read(self.length), np.uint8)
            else:
                tokens = self.encode(file.read())
        tokens_T = np.zeros(self.length, np.int32)
        tokens_T[: len(tokens)] = tokens[: self.length]
        segments_T = (np.arange(self.length) < len(tokens)).astype(np.int32)
        return {"tokens": tokens_T, "segments": segments_T, "label": np.int32(label)}
