from itertools import pairwise

import numpy as np
import pytest

from jaxmodels.data.formats.byte_text import text_files
from jaxmodels.data.formats.token_files import open_documents, open_tokens, write_tokens
from jaxmodels.data.pipeline import WindowPipeline

pytestmark = pytest.mark.fast


def corpus(folder, n=60):
    for i in range(n):
        path = folder / f"part{i % 3}" / f"{i:02}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"text {i}")
    (folder / "notes.md").write_text("not text")


def documents(tokens):
    return bytes(tokens).decode().split("\0")[1:]


def test_each_file_stands_behind_a_zero_byte_on_one_side_of_the_split(tmp_path):
    corpus(tmp_path)
    train, validation = (
        documents(text_files(tmp_path, split, fraction=0.3)) for split in ("train", "validation")
    )
    assert sorted(train + validation) == sorted(f"text {i}" for i in range(60)) and 8 < len(validation) < 30


def test_a_file_stays_on_its_side_when_others_come(tmp_path):
    corpus(tmp_path, 60)
    before = documents(text_files(tmp_path, "validation", fraction=0.3))
    corpus(tmp_path, 90)
    assert set(before) <= set(documents(text_files(tmp_path, "validation", fraction=0.3)))


def test_files_that_are_not_there_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.txt"):
        text_files([tmp_path / "gone.txt"], "train")
    with pytest.raises(ValueError, match=r"matches \*\*/\*\.txt"):
        text_files(tmp_path, "train")


def test_tokens_come_back_as_a_map_with_their_documents(tmp_path):
    parts = [np.array([5, 6, 7]), np.array([], int), np.array([65_535])]
    assert write_tokens(tmp_path / "x.npy", iter(parts)) == 4
    tokens, starts = open_tokens(tmp_path / "x.npy"), open_documents(tmp_path / "x.npy")
    assert isinstance(tokens, np.memmap) and tokens.dtype == np.uint16 and not tokens.flags.writeable
    assert [tokens[a:b].tolist() for a, b in pairwise(starts)] == [[5, 6, 7], [], [65_535]]
    assert np.array_equal(np.load(tmp_path / "x.npy", allow_pickle=False), tokens)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.documents.npy", "x.npy"]


def test_tokens_feed_a_window_pipeline(tmp_path):
    write_tokens(tmp_path / "x.npy", [np.arange(100)], np.uint8)
    data = WindowPipeline(lambda: open_tokens(tmp_path / "x.npy"), length=9, batch=4)
    assert np.array_equal(data.rows(1, 1, 2)["targets"][0], np.arange(46, 55))


@pytest.mark.parametrize(
    "document, dtype, message",
    [
        ([70_000], np.uint16, "document 1: got tokens from 70000 to 70000"),
        ([-1], np.uint16, "from -1"),
        ([0.5], np.uint16, "integers in one"),
        ([[1]], np.uint16, "integers in one dimension"),
        ([1], np.float32, "expected an integer type"),
    ],
)
def test_tokens_that_do_not_fit_are_refused_and_leave_no_file(tmp_path, document, dtype, message):
    with pytest.raises(ValueError, match=message):
        write_tokens(tmp_path / "x.npy", [[1], document], dtype)
    assert not list(tmp_path.iterdir())


def test_a_truncated_token_file_is_refused(tmp_path):
    write_tokens(tmp_path / "x.npy", [np.arange(100)])
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"x\.npy is no \.npy file of plain arrays"):
        open_tokens(tmp_path / "x.npy")


def test_tokens_and_documents_of_different_corpora_are_refused(tmp_path):
    write_tokens(tmp_path / "x.npy", [np.arange(100)])
    write_tokens(tmp_path / "y.npy", [np.arange(90)])
    (tmp_path / "y.documents.npy").replace(tmp_path / "x.documents.npy")
    with pytest.raises(ValueError, match=r"has 100 tokens.*got 90"):
        open_tokens(tmp_path / "x.npy")
