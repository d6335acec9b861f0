"""Broken files among sound ones: skipped where asked, counted, listed, and the same after a resumption."""

from __future__ import annotations

import json

import numpy as np
import pytest

import jaxmodels
from jaxmodels.console import Console
from jaxmodels.data.formats.images import image_folder
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.training import runner

pytestmark = pytest.mark.fast


@pytest.fixture
def folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = tmp_path / "data" / "ab"[i % 2] / f"{i:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "a" / "04.png").write_bytes(b"no image")
    whole = (tmp_path / "data" / "b" / "05.png").read_bytes()
    (tmp_path / "data" / "b" / "05.png").write_bytes(whole[: len(whole) // 2])
    return tmp_path / "data"


def test_a_broken_image_ends_a_run_with_its_name_and_advice(folder):
    with pytest.raises(
        ValueError, match=r'example 2 .*a/04\.png.* could not be loaded: .*with on_broken="skip"'
    ):
        image_folder(folder, size=8, batch=4).rows(0, 0, 4)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
def test_skipped_it_has_weight_0_and_is_listed_once(folder, workers):
    data = image_folder(folder, size=8, batch=4, seed=3, on_broken="skip", workers=workers)
    weights, batches = {}, {}
    for step in range(6):  # two passes
        batches[step] = data.rows(step, 0, 4)
        assert batches[step].keys() == data.spec.keys()
        for index, weight in zip(
            data.indices(step, 0, 4).tolist(), batches[step]["weight"].tolist(), strict=True
        ):
            assert weights.setdefault(index, weight) == weight
    assert {index for index, weight in weights.items() if not weight} == {2, 8}
    assert sum(weights.values()) == 10
    listed = data.broken()
    assert (
        len(listed) == 2
        and "04.png" in listed[0]
        and "05.png" in listed[1]
        and "UnidentifiedImageError" in listed[0]
    )
    data.close()
    again = image_folder(folder, size=8, batch=4, seed=3, on_broken="skip")
    for step in (4, 1):  # as after a resumption, and by rows
        parts = [again.rows(step, 0, 2), again.rows(step, 2, 4)]
        for name, x in batches[step].items():
            assert np.array_equal(np.concatenate([part[name] for part in parts]), x)


def load(i):
    if i == "program":
        raise TypeError("a mistake in load")
    if i == "machine":
        raise OSError(5, "input/output error")
    if i == "broken":
        raise ValueError("broken")
    return {"x": np.float32(i)}


def test_errors_of_program_and_machine_are_raised_all_the_same():
    for what in ("program", "machine"):
        with pytest.raises(ValueError, match=rf"example 1 .*{what}"):
            GrainPipeline([1, what], load=load, batch=2, on_broken="skip").rows(0, 0, 2)
    with pytest.raises(ValueError, match="got on_broken='ignore'; expected one of 'raise', 'skip'"):
        GrainPipeline([1], load=load, batch=1, on_broken="ignore")


def rated(i):
    raise ValueError(f"its rate is {8_000 + i} Hz, wanted 9")


def missing(item):
    raise KeyError("imgae")


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("fails", "said"), [(rated, "its rate is 800"), (missing, "KeyError: 'imgae'")])
def test_where_none_of_the_first_can_be_loaded_for_one_reason_nothing_is_skipped(fails, said, workers):
    data = GrainPipeline(
        list(range(20)), load=fails, batch=5, on_broken="skip", workers=workers, spec={"x": ((), np.float32)}
    )
    with pytest.raises(
        ValueError, match=rf"the first examples: got 5 .* same reason: example 0 \(0\): .*{said}.*; expected"
    ):
        data.rows(0, 0, 5)
    data.close()


def test_few_broken_examples_or_several_reasons_are_skipped_from_the_start():
    spec = {"x": ((), np.dtype(np.float32))}
    data = GrainPipeline(["broken"] * 3 + [5], load=load, batch=1, on_broken="skip", spec=spec)
    assert [float(data.rows(i, 0, 1)["weight"][0]) for i in range(4)] == [0, 0, 0, 1] and len(
        data.broken()
    ) == 3
    data = GrainPipeline(["broken"] * 4 + [5], load=load, batch=1, on_broken="skip", spec=spec)
    with pytest.raises(ValueError, match="got 4 that could not be loaded"):
        [data.rows(i, 0, 1) for i in range(4)]
    data = GrainPipeline(["broken", "odd"] * 4 + [5], load=load, batch=4, on_broken="skip", spec=spec)
    assert not data.rows(0, 0, 4)["weight"].any() and data.rows(2, 0, 1)["weight"].all()


def test_shapes_come_from_the_first_example_that_can_be_loaded():
    data = GrainPipeline(["broken", 5], load=load, batch=2, on_broken="skip")
    assert data.spec["x"][1] == np.float32
    batch = data.rows(0, 0, 2)
    assert batch["x"].tolist() == [0, 5] and batch["weight"].tolist() == [0, 1]
    with pytest.raises(ValueError, match="could not be loaded: ValueError: broken"):
        _ = GrainPipeline(["broken", "broken"], load=load, batch=2, on_broken="skip").spec


@pytest.mark.slow
def test_the_run_counts_and_lists_the_examples_that_it_skipped(folder, tmp_path, capsys):
    import optax

    from jaxmodels.models.mlp import MLP
    from jaxmodels.tasks.classify import classify

    data = {"size": 8, "batch": 8, "on_broken": "skip"}
    experiment = jaxmodels.Experiment(
        task=classify(MLP((4,), 2)),
        optimizer=optax.sgd(0.1),
        train=image_folder(folder, seed=0, **data),
        evals={"test": image_folder(folder, **data)},
        steps=6,
    )
    result = jaxmodels.train(experiment, folder=str(tmp_path / "run"))
    assert {name: found["count"] for name, found in result.summary["broken"].items()} == {
        "train": 2,
        "test": 2,
    }
    kept = json.loads((tmp_path / "run" / "result.json").read_text())["broken"]
    assert kept == result.summary["broken"] and "04.png" in kept["train"]["examples"][0]
    assert np.isfinite(result.metrics["test/loss"])
    capsys.readouterr()
    assert runner.evaluate(experiment, result.state, jaxmodels.Options(), Console()) == result.metrics
    assert "test: 2 examples could not be loaded and count nowhere" in capsys.readouterr().err
