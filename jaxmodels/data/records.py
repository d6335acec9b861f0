"""ArrayRecord files: many examples a file, at random access, each record checked by its own hash."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain

from jaxmodels.data.fingerprint import of_files
from jaxmodels.data.grain_source import Change, GrainPipeline, Load
from jaxmodels.data.order import Remainder
from jaxmodels.data.pipeline import Spec


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
) -> GrainPipeline:
    """The records of one or several ArrayRecord files, in the order given; decode(bytes) gives the example.

    Write them with "group_size:1", which makes reading at random fast. The rest: see GrainPipeline.
    """
    files = [Path(path) for path in ([paths] if isinstance(paths, str | os.PathLike) else paths)]

    def open() -> grain.sources.ArrayRecordDataSource:
        missing = [str(path) for path in files if not path.is_file()]
        if missing or not files:
            raise FileNotFoundError(
                f"there is no file {', '.join(missing) or 'given'}; wanted ArrayRecord files; check the paths"
            )
        try:
            return grain.sources.ArrayRecordDataSource([str(path) for path in files])
        except (ValueError, RuntimeError) as error:
            names = ", ".join(str(path) for path in files)
            raise ValueError(f"{names}: not all are whole ArrayRecord files ({error}); write or copy them again") from error

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
    )
