"""A fingerprint changes when an example or the order of examples does, and with nothing else."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from jaxmodels.data import fingerprint
from jaxmodels.data.bucketing import Buckets, TextPipeline, join
from jaxmodels.data.fingerprint import of_arrays
from jaxmodels.data.formats.text_folder import text_folder
from jaxmodels.data.formats.token_files import open_tokens, write_tokens
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.data.mixture import Mixture
from jaxmodels.data.mixup import Mixed
from jaxmodels.data.packing import PackedPipeline
from jaxmodels.data.pipeline import ArrayPipeline, WindowPipeline

pytestmark = pytest.mark.fast


def arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "image": random.integers(0, 255, (40, 8, 8, 1), np.uint8),
        "label": random.integers(0, 3, 40, np.int32),
    }


CHANGES = {
    "a value": lambda x: {**x, "label": np.where(np.arange(40) == 17, x["label"] ^ 1, x["label"])},
    "all targets": lambda x: {**x, "label": x["label"] + 1},
    "the order": lambda x: {name: np.roll(y, 1, 0) for name, y in x.items()},
    "half of the rows": lambda x: {name: y[:20] for name, y in x.items()},
    "a type": lambda x: {**x, "label": x["label"].astype(np.uint32)},
    "a shape": lambda x: {**x, "image": x["image"].reshape(40, 4, 16, 1)},
    "a name": lambda x: {"image": x["image"], "labels": x["label"]},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_of_arrays_any_change_is_seen(change):
    assert of_arrays(change(arrays())) != of_arrays(arrays()) == of_arrays(arrays())


def test_how_an_array_lies_in_memory_is_not_seen():
    x = arrays()
    other = {"label": x["label"], "image": np.asfortranarray(x["image"])}
    assert of_arrays(other) == of_arrays(x)


@pytest.mark.parametrize("kind", [object, np.dtypes.StringDType(), "U20", "M8[s]", "f2"], ids=str)
def test_of_arrays_of_any_kind_a_value_is_seen(kind):
    values = ["2020-01-01", "2021-01-01"] if kind != "f2" else ["1", "2"]
    x = {"x": np.array(values).astype(kind)}
    y = {"x": np.array([values[0], values[0]]).astype(kind)}
    assert of_arrays(x) == of_arrays({"x": x["x"].copy()}) != of_arrays(y)


def test_of_a_large_set_ends_and_labels_are_seen_and_little_is_read(monkeypatch):
    for name, value in (("WHOLE", 1 << 20), ("SMALL", 1 << 16), ("BLOCK", 64), ("BLOCKS", 16)):
        monkeypatch.setattr(fingerprint, name, value)
    read = []
    digest = fingerprint.piece_digest
    monkeypatch.setattr(fingerprint, "piece_digest", lambda piece: read.append(piece.nbytes) or digest(piece))
    x = {"image": np.zeros((2000, 1000), np.uint8), "label": np.zeros(2000, np.int32)}
    seen = {of_arrays(x)}
    assert sum(read) == 16 * 64 + 8000
    for name, at in (("image", (0, 0)), ("image", (1999, 999)), ("label", 1234)):
        x[name][at] = 1
        seen.add(of_arrays(x))
        x[name][at] = 0
    assert len(seen) == 4


# Pipelines


def texts(folder):
    for name, text in {"a/1.txt": "one", "a/2.txt": "two", "b/1.txt": "three"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def of_folder(folder) -> str:
    return text_folder(folder, length=4, batch=2).fingerprint()


def test_a_folder_that_moved_is_the_same_and_one_with_another_file_content_or_class_is_not(tmp_path):
    here = of_folder(texts(tmp_path / "here"))
    assert of_folder(shutil.copytree(tmp_path / "here", tmp_path / "there")) == here
    changes = {
        "content": lambda x: (x / "a" / "1.txt").write_text("One"),
        "name": lambda x: (x / "a" / "1.txt").rename(x / "a" / "0.txt"),
        "class": lambda x: (x / "a").rename(x / "c"),
        "gone": lambda x: (x / "a" / "1.txt").unlink(),
    }
    for name, change in changes.items():
        change(shutil.copytree(tmp_path / "here", tmp_path / name))
        assert of_folder(tmp_path / name) != here, name


@pytest.mark.parametrize(
    "items", [[1, 2, 3], ["x", "y", "z"], [b"x", b"y", b"z"], [np.arange(3), np.ones(2)]], ids=repr
)
def test_a_list_of_items_is_its_items_in_their_order(items):
    def of(source):
        return GrainPipeline(source, batch=1, load=lambda x: {"x": np.zeros(1)}).fingerprint()

    assert of(items) == of(list(items)) != of(items[::-1])


class Squares:
    """A source that says nothing but by loading."""

    def __init__(self, power: int = 2):
        self.power = power

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> int:
        return index**self.power


def test_another_source_is_what_some_of_its_items_are_loaded_to():
    def of(source):
        return GrainPipeline(source, batch=1, load=lambda x: {"x": np.float64(x)}).fingerprint()

    assert of(Squares()) == of(Squares()) != of(Squares(3))


def test_every_pipeline_tells_one_that_follows_its_data(tmp_path):
    def built(first: int) -> dict[str, str]:
        tokens = np.array([first, *range(1, 30)], np.int32)
        text = {**join([tokens[:4].tolist(), tokens[4:].tolist()]), "label": np.zeros(2, np.int32)}
        write_tokens(tmp_path / f"{first}.npy", [tokens])
        plain = ArrayPipeline({**arrays(), "label": arrays()["label"] * 0 + first}, batch=4)
        pipelines = [
            plain,
            WindowPipeline(tokens, length=4, batch=2),
            WindowPipeline(lambda: open_tokens(tmp_path / f"{first}.npy"), length=4, batch=2),
            TextPipeline(text, length=8, batch=1),
            Buckets(TextPipeline(text, length=8, batch=1), lengths=(4, 8)),
            PackedPipeline({"tokens": tokens, "offsets": np.array([0, 10, 30])}, length=8, batch=1),
            Mixture({"a": (plain, 1), "b": (ArrayPipeline(arrays(), batch=4), 1)}, batch=4),
            Mixed(plain),
        ]
        return {f"{i} {type(data).__name__}": data.fingerprint() for i, data in enumerate(pipelines)}

    one, again, other = built(1), built(1), built(2)
    assert one == again and all(one.values())
    assert [name for name in one if one[name] == other[name]] == []
