"""Parts of a table or a folder: disjoint, complete, stratified, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxmodels.data.formats.audio import audio_folder, wav
from jaxmodels.data.formats.images import image_folder
from jaxmodels.data.formats.text_folder import text_folder
from jaxmodels.data.split import fold, part_of, split

pytestmark = pytest.mark.fast


def table(n: int = 100) -> dict[str, np.ndarray]:
    return {"id": np.arange(n), "label": np.arange(n) % 7 % 3, "name": np.array([f"n{i}" for i in range(n)])}


@pytest.mark.parametrize("by", [None, "label"])
def test_parts_are_disjoint_and_complete_and_keep_rows_together(by):
    parts = split(table(), 0.2, 15, by=by)
    assert [len(part["id"]) for part in parts] == [65, 20, 15]
    assert sorted(np.concatenate([part["id"] for part in parts]).tolist()) == list(range(100))
    for part in parts:
        assert part["name"].tolist() == [f"n{i}" for i in part["id"]] and (np.diff(part["id"]) > 0).all()


@pytest.mark.parametrize(
    ("share", "n", "rows"), [(0.1, 10, 1), (0.25, 10, 3), (0.2, 7, 1), (0.3, 5, 2), (0.1, 364, 36)]
)
def test_a_share_is_rounded_with_halves_up(share, n, rows):
    assert [len(part["id"]) for part in split(table(n), share)] == [n - rows, rows]


def test_the_seed_alone_changes_the_parts():
    one, again, other = (split(table(), 0.5, seed=seed)[1]["id"].tolist() for seed in (1, 1, 2))
    assert one == again != other


@given(st.lists(st.integers(0, 4), min_size=12, max_size=80), st.floats(0.1, 0.9))
def test_every_label_has_its_share_of_both_parts_to_within_a_row(labels, share):
    label = np.array(labels)
    part = part_of(len(label), (share,), strata=label)
    size = np.floor(share * len(label) + 0.5)
    assert (part == 1).sum() == size
    for k in set(labels):
        assert abs((part[label == k] == 1).sum() - (label == k).sum() * size / len(label)) < 1


@given(st.integers(20, 90), st.integers(2, 6))
def test_folds_are_held_out_once_and_differ_by_a_row(n, folds):
    halves = [fold(table(n), i, folds=folds, by="label") for i in range(folds)]
    sizes = [len(held["id"]) for _, held in halves]
    assert max(sizes) - min(sizes) <= 1
    assert sorted(np.concatenate([held["id"] for _, held in halves]).tolist()) == list(range(n))
    for train, held in halves:
        assert sorted([*train["id"], *held["id"]]) == list(range(n))
        share = np.bincount(table(n)["label"], minlength=3) / folds
        assert (abs(np.bincount(held["label"], minlength=3) - share) < 2).all()


def test_words_are_labels_too():
    words = np.array(["cat", "dog", "dog", "dog"] * 5, np.dtypes.StringDType())
    _, held = split({"word": words}, 4, by="word")
    assert sorted(held["word"].tolist()) == ["cat", "dog", "dog", "dog"]


@pytest.mark.parametrize(
    ("held_out", "options", "said"),
    [
        ((), {}, r"got no size; expected that of each part after the first. Call split\(data, 0.1\)"),
        ((1.5,), {}, "got a part of 1.5; expected a share from 0 to 1, or a number of rows"),
        ((100,), {}, "got parts of 100 rows of 100; expected at least one row in each and one left"),
        ((0.001,), {}, "got parts of 0 rows of 100; expected at least one row"),
        ((0.1,), {"by": "kind"}, "got by='kind'; expected one of the columns id, label, name"),
    ],
)
def test_what_cannot_be_split_is_said(held_out, options, said):
    with pytest.raises(ValueError, match=said):
        split(table(), *held_out, **options)


def texts(folder: Path, names: list[str]) -> Path:
    """Class a has every name, class b every second."""
    for name, of in (("a", names), ("b", names[::2])):
        (folder / name).mkdir(parents=True)
        for one in of:
            (folder / name / f"{one}.txt").write_text(one)
    return folder


def read(part, **options) -> list[tuple[str, int]]:
    data = text_folder(part, length=4, batch=1, **options)
    rows = [data.rows(step, 0, 1) for step in range(data.steps)]
    return [(bytes(int(t) for t in row["tokens"][0] if t).decode(), int(row["label"][0])) for row in rows]


def test_a_folder_is_split_by_class_whatever_the_order_of_its_files(tmp_path):
    names = [f"t{i:02}" for i in range(20)]
    one, other = texts(tmp_path / "one", names), tmp_path / "other"
    for name in ("b", "a"):
        (other / name).mkdir(parents=True)
        for file in sorted((one / name).iterdir(), reverse=True):
            (other / name / file.name).write_bytes(file.read_bytes())
    train, held = (read(part) for part in split(one, 0.2, by="label"))
    assert sorted(train + held) == sorted([(name, 0) for name in names] + [(name, 1) for name in names[::2]])
    assert [label for _, label in held] == [0] * 4 + [1] * 2
    assert [read(part) for part in split(other, 0.2, by="label")] == [train, held]
    assert sorted(x for i in range(3) for x in read(fold(one, i, folds=3)[1])) == sorted(train + held)


def test_a_part_that_lacks_a_class_has_the_numbers_of_the_whole(tmp_path):
    folder = texts(tmp_path, ["x", "y", "z"])
    for seed in range(9):
        train, held = split(folder, 1, seed=seed)
        label = {"x": {0, 1}, "y": {0}, "z": {0, 1}}
        assert len(read(train)) == 4 and all(number in label[name] for name, number in read(held))


def test_images_and_sounds_are_split_alike(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs pillow")
    pytest.importorskip("soundfile", reason="needs soundfile")
    for i in range(10):
        for kind in ("images", "sounds"):
            (tmp_path / kind / f"c{i % 2}").mkdir(parents=True, exist_ok=True)
        image.fromarray(np.full((2, 2, 3), 20 * i, np.uint8)).save(
            tmp_path / "images" / f"c{i % 2}" / f"{i}.png"
        )
        (tmp_path / "sounds" / f"c{i % 2}" / f"{i}.wav").write_bytes(wav(np.full(4, i / 20), 100))
    for name, scale, make in (
        ("images", 255 / 20, lambda part: image_folder(part, size=2, batch=1)),
        ("sounds", 20, lambda part: audio_folder(part, rate=100, samples=4, batch=1)),
        (
            "sounds",
            20,
            lambda part: audio_folder(
                part, rate=100, samples=4, batch=1, label=lambda path: int(path.stem) % 2
            ),
        ),
    ):
        parts = []
        for part in split(tmp_path / name, 0.4, by="label"):
            data = make(part)
            rows = [data.rows(step, 0, 1) for step in range(data.steps)]
            key = "image" if name == "images" else "audio"
            parts.append([(round(float(row[key].mean()) * scale), int(row["label"][0])) for row in rows])
        assert sorted(parts[0] + parts[1]) == [(i, i % 2) for i in range(10)]
        assert sorted(label for _, label in parts[1]) == [0, 0, 1, 1]


def test_a_folder_has_no_columns(tmp_path):
    with pytest.raises(ValueError, match=r"got by='kind' for the folder .*; expected 'label' or None"):
        split(tmp_path, 0.1, by="kind")
