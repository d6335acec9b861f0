"""One rule for every reader of folders: what is data, and in which order."""

from __future__ import annotations

import os
import zipfile

import numpy as np
import pytest

from jaxmodels.commands.tokenize import tokenize
from jaxmodels.data.folders import files_below, is_hidden
from jaxmodels.data.formats.byte_text import text_files
from jaxmodels.data.formats.images import image_folder
from jaxmodels.data.formats.text_folder import text_folder
from jaxmodels.data.formats.token_files import open_documents

pytestmark = pytest.mark.fast

HIDDEN = [
    ".git/a.txt",
    "x/.hg/a.txt",
    "x/.a.txt",
    "x/._b.txt",
    "__MACOSX/x/._b.txt",
    "x/__MACOSX/c.txt",
    ".DS_Store",
]
SEEN = ["x/B.txt", "x/b.txt", "x/b/c.txt", "x/b-c.txt", "y/é.txt", "y/z.txt"]


@pytest.fixture
def where(tmp_path):
    folder = tmp_path / "texts"
    for name in [*HIDDEN, *SEEN]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(folder, **options):
    return [path.relative_to(folder).as_posix() for path in files_below(folder, **options)]


def test_hidden_names_are_no_data_and_the_order_is_by_parts_and_letters(where):
    assert names(where) == sorted(SEEN, key=lambda name: name.split("/")) == names(where, pattern="**/*.txt")
    assert names(where, endings=(".txt",)) == names(where)
    assert names(where, pattern="*/[!B]*.txt") == [
        name for name in names(where) if name not in ("x/B.txt", "x/b/c.txt")
    ]
    assert all(
        map(is_hidden, ["Thumbs.db", "thumbs.DB", "desktop.ini", "._x", "__MACOSX"])
    ) and not is_hidden("_x")


def test_hidden_files_are_read_where_the_pattern_names_them(where):
    assert names(where, pattern=".git/*.txt") == [".git/a.txt"]


def test_every_reader_takes_the_same_files(where, tmp_path):
    pytest.importorskip("tokenizers")
    data = text_folder(where, length=9, batch=6)
    assert data.classes == ("x", "y")
    read = [bytes(row[row > 0].astype(np.uint8)) for row in data.rows(0, 0, 6)["tokens"]]
    assert read == [name.encode()[:9] for name in names(where)]
    assert bytes(text_files(where, "train", fraction=0)).split(b"\0")[1:] == [
        name.encode() for name in names(where)
    ]
    facts = tokenize(where, tmp_path / "out", vocabulary=300, fraction=0)
    assert facts["train_files"] == len(SEEN) == len(open_documents(tmp_path / "out" / "train.npy")) - 1


def test_an_archive_is_read_by_the_same_rule(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    seen = ["set/x/a.png", "set/y/a.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in [
            *seen,
            "__MACOSX/set/x/a.png",
            "set/x/._a.png",
            "set/.cache/a.png",
            "set/x/__macosx/a.png",
        ]:
            archive.write(tmp_path / "a.png", name)
    data = image_folder(tmp_path / "a.zip", size=4, batch=1)
    assert data.classes == ("x", "y") and [str(item) for item, _ in data.source] == seen


def test_an_archive_of_texts_has_the_order_of_its_folder(where, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in [*HIDDEN, *reversed(SEEN)]:
            archive.writestr(f"texts/{name}", name)
    assert [str(item) for item, _ in text_folder(tmp_path / "a.zip", length=1, batch=1).source] == [
        f"texts/{name}" for name in names(where)
    ]


def test_links_are_followed_and_a_loop_ends(where, tmp_path):
    os.symlink(where, where / "x" / "again")  # to a folder that it lies in
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "t.txt").write_text("t")
    os.symlink(tmp_path / "other", where / "y" / "linked")
    os.symlink(tmp_path / "gone", where / "y" / "broken.txt")
    assert names(where) == sorted([*SEEN, "y/linked/t.txt"], key=lambda name: name.split("/"))


def test_a_name_that_is_no_unicode_is_read(where):
    os.makedirs(os.fsencode(where) + b"/z")
    with open(os.fsencode(where) + b"/z/\xff.txt", "wb") as file:
        file.write(b"latin")
    assert bytes(text_files(where, "train", fraction=0)).endswith(b"\0latin")
