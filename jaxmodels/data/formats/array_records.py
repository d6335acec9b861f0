"""ArrayRecord files: many examples in a file, with random access; each record is checked by its own hash."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain

from jaxmodels.data.broken import OnBroken
from jaxmodels.data.example_loader import Change, Load
from jaxmodels.data.fingerprint import of_files
from jaxmodels.data.folders import existing_file
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.data.order import Remainder
from jaxmodels.data.unpack import reading
from jaxmodels.pipeline import Spec


class RecordPipeline(GrainPipeline):
    """See record_pipeline."""

    def __init__(self, files: Sequence[Path], *source: Any, **options: Any):
        super().__init__(*source, **options)
        self._files = files

    def fingerprint(self) -> str:
        """Changes when a file does; see data/fingerprint.py."""
        return of_files([(path.name, path) for path in self._files])


def record_pipeline(
    paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    decode: Load,
    *,
    batch: int,
    seed: int | None = None,
    remainder: Remainder | None = None,
    augment: Change | None = None,
    workers: int = 0,
    threads: int | None = None,
    spec: Spec | None = None,
    on_broken: OnBroken = "raise",
) -> GrainPipeline:
    """The records of one or several ArrayRecord files, in the order given; decode(bytes) returns the example.

    Write them with "group_size:1", which makes random reads fast. The other arguments: see GrainPipeline.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]

    def open() -> grain.sources.ArrayRecordDataSource:
        if not files:
            raise ValueError("record_pipeline: got no paths; expected those of ArrayRecord files. Give some")
        names = [str(existing_file(path)) for path in files]
        with reading(", ".join(names), "whole ArrayRecord files", "Write or copy them again"):
            return grain.sources.ArrayRecordDataSource(names)

    return RecordPipeline(
        files,
        open,
        batch=batch,
        seed=seed,
        remainder=remainder,
        load=decode,
        augment=augment,
        workers=workers,
        threads=threads,
        spec=spec,
        on_broken=on_broken,
    )
