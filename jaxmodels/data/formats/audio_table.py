"""Tables of recordings and what is said in them: a column of files, a column of texts."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from jaxmodels.data.formats.audio_file import read_audio
from jaxmodels.data.formats.tables import read_table
from jaxmodels.data.order import Remainder
from jaxmodels.data.pipeline import Augment
from jaxmodels.data.recordings import RecordingPipeline, join_audio


def audio_table(
    table: str | os.PathLike[str],
    *,
    rate: int,
    samples: int,
    labels: int,
    encode: Callable[[str], Sequence[int]],
    batch: int,
    seed: int | None = None,
    file: str = "file",
    text: str = "text",
    augment: Sequence[Augment] = (),
    remainder: Remainder | None = None,
) -> RecordingPipeline:
    """Batches of "audio", "segments" and "labels" (int32, `labels`), for tasks.ctc; see RecordingPipeline.

    All recordings are decoded once and kept in memory as 16-bit integers: an hour of 16 kHz takes 115 MB.

    table: a file that read_table knows (.csv, .tsv, .jsonl, .parquet).
    rate, samples: in Hz, and of a row; a recording that is longer is refused, as its text would be too.
    labels: of a row, at most. encode(text): its labels, from 1 on; 0 is the blank, and fills rows.
    file, text: the names of the columns; a file's path is relative to the table's folder.
    """
    path = Path(table)

    def arrays() -> dict[str, np.ndarray]:
        columns = read_table(path)
        if missing := [name for name in (file, text) if name not in columns]:
            raise ValueError(
                f"{path}: got no column {missing[0]!r}; expected one of {', '.join(columns)}. Name one of "
                "those"
            )
        sounds, rows = [], np.zeros((len(columns[file]), labels), np.int32)
        for row, (name, said) in enumerate(zip(columns[file], columns[text], strict=True)):
            audio_S = read_audio(path.parent / str(name), rate=rate)
            encoded = np.asarray(list(encode(str(said))), np.int32)
            wrong = encoded.ndim != 1 or (encoded.size and encoded.min() < 1)
            if len(audio_S) > samples or len(encoded) > labels or wrong:
                raise ValueError(
                    f"{path}: got in row {row}, counted from 0, {len(audio_S):,} samples and the labels "
                    f"{encoded.tolist()[:8]} ({len(encoded):,} of them); expected at most {samples:,} and "
                    f"{labels:,}, from 1 on. Raise samples or labels, cut the recording, or correct encode"
                )
            sounds.append((audio_S.clip(-1, 1 - 2**-15) * 2**15).round().astype(np.int16))
            rows[row, : len(encoded)] = encoded
        return {**join_audio(sounds), "labels": rows}

    spec = {"labels": ((labels,), np.dtype(np.int32))}
    return RecordingPipeline(
        arrays, length=samples, batch=batch, seed=seed, remainder=remainder, augment=augment, spec=spec
    )
