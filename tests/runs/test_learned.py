"""What is learned from data is computed once in a run's life, in whatever order and thread."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from jaxmodels.data.formats.images import ClassFolder
from jaxmodels.data.formats.text_folder import text_folder
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.runs.files import BadFile
from jaxmodels.runs.learned import Memory, learned, portable_name, read_learned, remembering, write_learned

pytestmark = pytest.mark.fast


def texts(folder, **files):
    """folder/<class>/<n>.txt for each class with its texts."""
    for name, contents in files.items():
        (folder / name).mkdir(parents=True)
        for n, text in enumerate(contents):
            (folder / name / f"{n}.txt").write_text(text)
    return folder


def labels(data: ClassFolder) -> list[int]:
    batch = data.rows(0, 0, data.batch)
    return batch["label"][batch["weight"] > 0].tolist()


def test_outside_of_a_run_it_computes_every_time():
    values = iter([1, 2])
    assert [learned("x", lambda: next(values)) for _ in range(2)] == [1, 2]


def test_in_a_run_it_computes_once_and_whoever_has_its_values_never():
    memory = Memory()
    with memory.building():
        assert learned("x", lambda: (1, 0.1)) == [1, 0.1]
        assert learned("x", lambda: 1 / 0) == [1, 0.1]
    with Memory(memory.values).building():
        assert learned("x", lambda: 1 / 0) == [1, 0.1]


def test_what_a_pipeline_reads_later_in_another_thread_is_of_the_run_that_built_it():
    memories = [Memory({"scale": 2.0}), Memory({"scale": 3.0})]
    built = []
    for memory in memories:
        with memory.building():
            built.append(ArrayPipeline(lambda: {"x": np.ones(4) * learned("scale", lambda: 1 / 0)}, batch=4))
            built.append(
                GrainPipeline(lambda: [learned("scale", lambda: 1 / 0)], batch=1, load=lambda x: {"x": x})
            )
    got = []
    thread = threading.Thread(target=lambda: got.extend(float(data.rows(0, 0, 1)["x"][0]) for data in built))
    thread.start()
    thread.join()
    assert got == [2, 2, 3, 3]


def test_new_values_are_kept_as_they_come():
    memory, kept = Memory({"a": 1}), []
    with memory.building():
        later = remembering(lambda: learned("b", lambda: 2))
    memory.keep(lambda values: kept.append(dict(values)))
    assert later() == later() == 2
    assert kept == [{"a": 1}, {"a": 1, "b": 2}]


def test_what_json_cannot_hold_is_named_with_what_to_do():
    with pytest.raises(
        ValueError, match=r"learned\('towns'\): got set .*; expected a JSON value: .* Convert it"
    ):
        learned("towns", lambda: {"Aachen"})


def test_numbers_and_arrays_of_numpy_come_as_equal_ones_of_python():
    third = np.float32(1) / 3
    got = learned(
        "x", lambda: [third, np.int64(2**60), np.array([third]), np.array(["a"], np.dtypes.StringDType())]
    )
    assert got == [float(third), 2**60, [float(third)], ["a"]] and np.float32(got[0]) == third


def test_a_path_keeps_its_name_when_it_moves_and_two_paths_never_share_one(tmp_path):
    with Memory().building():
        assert [portable_name(tmp_path / x) for x in ("a/train", "b/train", "a/train", "c")] == [
            "train",
            "train (2)",
            "train",
            "c",
        ]
    with Memory().building():
        assert portable_name("/elsewhere/train") == "train"


# Classes


def test_a_class_that_is_missing_beside_the_training_folder_shifts_no_label(tmp_path):
    texts(tmp_path / "train", a=["x"], b=["y"], c=["z"])
    for name in ("test", "val", "Validation", "dev"):
        data = text_folder(texts(tmp_path / name, b=["y"], c=["z"]), length=1, batch=2)
        assert data.classes == ("a", "b", "c") and labels(data) == [1, 2], name


def test_a_folder_that_is_no_class_is_named(tmp_path):
    texts(tmp_path / "train", a=["x"], b=["y"])
    texts(tmp_path / "test", a=["x"], bee=["y"])
    with pytest.raises(
        ValueError, match=r"test: got a folder 'bee'; expected only folders of the classes a, b\. Give it"
    ):
        labels(text_folder(tmp_path / "test", length=1, batch=2))


def test_classes_can_be_given_in_another_order(tmp_path):
    data = text_folder(texts(tmp_path, a=["x"], b=["y"]), length=1, batch=2, classes=("b", "a"))
    assert data.classes == ("b", "a") and labels(data) == [1, 0]


def test_a_run_keeps_the_classes_of_a_folder_that_changed_moved_or_went(tmp_path):
    memory = Memory()
    with memory.building():
        assert text_folder(
            texts(tmp_path / "here" / "train", a=["x"], b=["y"]), length=1, batch=2
        ).classes == ("a", "b")
    with Memory(memory.values).building():
        moved = text_folder(texts(tmp_path / "there" / "train", b=["y"]), length=1, batch=2)
        test = text_folder(tmp_path / "there" / "test", length=1, batch=2)
    assert moved.classes == test.classes == ("a", "b") and labels(moved) == [1]
    with Memory(memory.values).building():
        renamed = text_folder(texts(tmp_path / "renamed" / "train", ä=["x"], b=["y"]), length=1, batch=2)
    assert renamed.classes == ("a", "b")
    with pytest.raises(ValueError, match="got a folder 'ä'; expected only folders of the classes a, b"):
        labels(renamed)


def test_steps_and_shapes_are_known_where_the_data_is_not(tmp_path):
    def built(folder):
        def read():
            if not folder.exists():
                raise FileNotFoundError(folder)
            return {"x": np.zeros((10, 3), np.uint8), "y": np.zeros(10, ">i4")}

        return ArrayPipeline(read, batch=4, seed=0), text_folder(folder, length=1, batch=2)

    memory = Memory()
    with memory.building():
        here = built(texts(tmp_path / "train", a=["x"], b=["y", "z"]))
        facts = [(data.steps, dict(data.spec)) for data in here]
    assert [steps for steps, _ in facts] == [3, 2]
    with Memory(memory.values).building():
        assert [(data.steps, dict(data.spec)) for data in built(tmp_path / "gone")] == facts
    with pytest.raises(FileNotFoundError):
        _ = built(tmp_path / "gone")[0].steps


# In a run's folder


def test_values_come_back_from_the_folder_bit_for_bit(tmp_path):
    values = {"scale": [0.1, 1e-300, float("inf")], "names": ["ä", "b"]}
    assert read_learned(tmp_path) == {}
    write_learned(tmp_path, values)
    assert read_learned(tmp_path) == values


@pytest.mark.parametrize("change", [(b"0.1", b"0.2"), (b'"values"', b'"value"'), (b"{", b"[")], ids=repr)
def test_values_that_were_changed_are_refused(tmp_path, change):
    write_learned(tmp_path, {"scale": 0.1})
    path = tmp_path / "learned.json"
    path.write_bytes(path.read_bytes().replace(*change))
    with pytest.raises(BadFile, match=r"learned\.json is damaged: .*\. Copy it back"):
        read_learned(tmp_path)
