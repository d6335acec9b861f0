"""Files in a folder or an archive with one folder for each class, and the class of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from jaxmodels.data.archive import Member, is_archive, members
from jaxmodels.data.fingerprint import of_files
from jaxmodels.data.folders import existing_folder, files_below, is_hidden
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.data.split import Part
from jaxmodels.runs.learned import OtherData, learned, portable_name, remembering

# Folders beside train/ that have its classes.
NOT_TRAINING = ("test", "val", "valid", "validation", "dev", "eval")


class ClassFolder(GrainPipeline):
    """Files in folder/<class>/, loaded from (path, label)."""

    endings: tuple[str, ...] = ()

    def __init__(
        self, folder: str | os.PathLike[str] | Part, classes: Sequence[str] | None = None, **options: Any
    ):
        super().__init__(self._items, **options)
        self._part = folder if isinstance(folder, Part) else None
        folder = folder.folder if isinstance(folder, Part) else Path(folder)
        self.folder = folder
        self._given = classes
        suffix = "".join(folder.name.partition(".")[1:])
        owner = folder.with_name(f"train{suffix}") if _follows(folder) else folder
        self._learned = remembering(partial(learned, f"classes of {portable_name(owner)}", self._names))

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The classes' names, in the order of their labels."""
        return tuple(self._learned() if self._given is None else self._given)

    def _names(self) -> Sequence[str]:
        train = training(self.folder)
        return _list(self.folder if train is None else train, self.endings)[0]

    @cached_property
    def _files(self) -> tuple[tuple[str, ...], list[tuple[Any, int]]]:
        known = self.classes if _follows(self.folder) or self._given is not None else ()
        return _list(self.folder, self.endings, known)

    def fingerprint(self) -> str:
        """Changes when a file, its content or its class does; see data/fingerprint.py."""
        names, items = self._files
        in_archive, on_disk = [], []
        for file, label in items:
            if isinstance(file, Member):
                in_archive.append((f"{names[label]}/{file.name}", file.data))
            else:
                on_disk.append((Path(os.path.relpath(file, self.folder)).as_posix(), file))
        return of_files([*in_archive, *on_disk])

    def _items(self) -> list[tuple[Any, int]]:
        """The files, each with the index of its class in `classes`."""
        names, items = self._files
        if unknown := [name for name in names if name not in self.classes]:
            raise OtherData(
                f"{self.folder}: got a folder {unknown[0]!r}; expected only folders of the classes "
                f"{_abbreviated(self.classes)}. Give it the name of its class, move it away, or name it in "
                "classes="
            )
        chosen = items if self._part is None else self._part.of(items)
        return [(file, self.classes.index(names[label])) for file, label in chosen]


def training(folder: Path) -> Path | None:
    """The folder or archive called train beside one called test or the like; None where there is none."""
    if not _follows(folder):
        return None
    _, dot, ending = folder.name.partition(".")
    siblings = [folder.with_name(f"{name}{dot}{ending}") for name in ("train", "training")]
    return next((path for path in siblings if path.exists()), None)


def _follows(folder: Path) -> bool:
    """Whether this is a part of a data set that takes its classes from the training part."""
    return folder.name.partition(".")[0].lower() in NOT_TRAINING


def _list(
    folder: Path, endings: tuple[str, ...], known: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[tuple[Any, int]]]:
    return list_archive(folder, endings, known) if is_archive(folder) else list_folder(folder, endings)


def _abbreviated(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (" …" if len(names) > 12 else "")


def list_folder(folder: Path, endings: tuple[str, ...]) -> tuple[tuple[str, ...], list[tuple[str, int]]]:
    """The names of the folders in `folder`, sorted, and the files in each as (path, index of the folder)."""
    existing_folder(folder, "one with a folder for each class")
    classes = tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not is_hidden(p.name)))
    if not classes:
        raise ValueError(
            f"{folder}: got a folder without folders in it; expected one for each class, with its files. "
            "Move the files into some"
        )
    items = []
    for label, name in enumerate(classes):
        files = files_below(folder / name, endings=endings)
        if not files:
            raise ValueError(
                f"the class {folder / name}: got no file that ends in {' '.join(endings)}; expected one or "
                "more. Add some or remove the folder"
            )
        items += [(str(path), label) for path in files]
    return classes, items


def list_archive(
    archive: Path, endings: tuple[str, ...], known: Sequence[str] = ()
) -> tuple[tuple[str, ...], list[tuple[Member, int]]]:
    """Like list_folder, of an archive; folders that all files share, such as its own name, are skipped.

    known: classes, of which the archive may hold a single one.
    """
    files = [file for file in files_inside(archive, endings) if "/" in file.name]
    folders = [file.parts[:-1] for file in files]
    depth = None  # at which the folders' names are classes
    for level, names in enumerate(zip(*folders, strict=False)):
        if set(names) <= set(known) or len(set(names)) > 1:
            depth = level
            break
    if depth is None:
        raise ValueError(
            f"{archive}: got {len(files)} files that end in {' '.join(endings)}, not all of them in a "
            "class's folder; expected two or more such folders with the files in them. Pack it again"
        )
    classes = tuple(sorted({parts[depth] for parts in folders}))
    items = [(file, classes.index(parts[depth])) for file, parts in zip(files, folders, strict=True)]
    return classes, sorted(items, key=lambda item: item[1])


def files_inside(archive: Path, endings: tuple[str, ...]) -> list[Member]:
    """The files of an archive that are data, by the rule of data/folders.py and in its order."""

    def is_data(name: str) -> bool:
        hidden = any(is_hidden(part) for part in name.split("/") if part != ".")
        return name.lower().endswith(endings) and not hidden

    files = [Member(name, data) for name, data in members(archive, is_data).items()]
    return sorted(files, key=lambda file: file.parts)
