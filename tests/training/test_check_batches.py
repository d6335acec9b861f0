"""A batch that is not what its task requires is refused before anything is trained: key, row, got, expected,
do.
"""

from __future__ import annotations

import re
import time

import jax
import numpy as np
import pytest

from jaxmodels import Experiment, optim
from jaxmodels.data.bucketing import Buckets, TextPipeline, join
from jaxmodels.data.formats.tables import read_csv
from jaxmodels.data.mixup import Mixed
from jaxmodels.data.pipeline import ArrayPipeline, WindowPipeline
from jaxmodels.models.bert import Bert, SpanModel
from jaxmodels.models.gpt import GPT
from jaxmodels.models.mlp import MLP
from jaxmodels.options import Options
from jaxmodels.state import empty_batch
from jaxmodels.tasks.augmented import augmented
from jaxmodels.tasks.classify import classify
from jaxmodels.tasks.language import next_token
from jaxmodels.tasks.lora import lora
from jaxmodels.tasks.pretrained import start_from
from jaxmodels.tasks.question_answering import question_answering
from jaxmodels.tasks.regress import regress
from jaxmodels.training import check_batches, resident, runner
from jaxmodels.training.check_batches import Checker, check_batch
from tests.tiny import TINY

THREE = "expected whole numbers from 0 to 2, the model's 3 classes. Number the classes from 0"


@pytest.fixture(scope="module")
def wine():
    x, y = pytest.importorskip("sklearn.datasets", reason="needs scikit-learn").load_wine(return_X_y=True)
    return ((x - x.mean(0)) / x.std(0)).astype(np.float32), y


def trained(task, train, evals=(), steps=2, **options):
    evals = {"test": evals} if evals != () else {}
    experiment = Experiment(task=task, optimizer=optim.adam(1e-2), train=train, evals=evals, steps=steps)
    return runner.run(experiment, Options(**{"mesh": "data=1", **options}))


def of_classes(x, label, **more):
    return ArrayPipeline({"features": x, "label": label, **more}, batch=32, seed=0)


TASK = classify(MLP((4,), 3), inputs="features")


@pytest.mark.parametrize(
    ("change", "got"),
    [
        (lambda y: y + 1, f"'label': got 3 in row 130 of the data; {THREE}"),
        (lambda y: y - 1, f"'label': got -1 in row 0 of the data; {THREE}"),
        (lambda y: y * 100, f"'label': got 100 in row 59 of the data; {THREE}"),
        (
            lambda y: y[:, None],
            "'label': got the shape (N, 1); expected (N,), the model's 3 classes. Give one number for each",
        ),
        (
            lambda y: np.eye(3)[y],
            "'label': got the shape (N, 3); expected (N,), the model's 3 classes. Give one number for each",
        ),
        (
            lambda y: y.astype(np.float32),
            "'label': got values of type float32; expected whole numbers, the model's 3 classes",
        ),
        (lambda y: y == 0, "'label': got values of type bool; expected whole numbers"),
        (
            lambda y: np.array(["a", "b", "c"])[y],
            "'label': got values of type <U1; expected numbers. Number them",
        ),
        (
            lambda y: np.array(["a", "b", "c"], np.dtypes.StringDType())[y],
            "'label': got values of type StringDType()",
        ),
        (
            lambda y: y + 2**33,
            "'label': got 8589934592 in row 0 of the data; expected whole numbers from -2147483648",
        ),
    ],
)
def test_labels_of_wine_that_are_none_of_its_classes_are_refused(wine, change, got):
    x, y = wine
    with pytest.raises(ValueError, match=re.escape(got)):
        trained(TASK, of_classes(x, change(y)))


def test_labels_of_wine_that_are_its_classes_are_learned(wine):
    x, y = wine
    assert trained(TASK, of_classes(x, y), of_classes(x, y), steps=60).metrics["test/accuracy"] > 0.9
    for label in (y.astype(np.uint8), y.astype(np.int16)):
        check_batch(TASK, of_classes(x, label).rows(0, 0, 32))


def test_labels_1_to_8_of_8_outputs_are_refused():
    data = of_classes(np.zeros((40, 2), np.float32), np.arange(40) % 8 + 1)
    with pytest.raises(
        ValueError,
        match="got 8 in row 7 of the data; expected whole numbers from 0 to 7, the model's 8 classes",
    ):
        trained(classify(MLP((4,), 8), inputs="features"), data)


def test_the_labels_of_an_evaluation_are_refused_before_anything_is_trained(wine):
    x, y = wine
    with pytest.raises(ValueError, match="test, 'label': got 3 in row 130 of the data"):
        trained(TASK, of_classes(x, y), of_classes(x, y + 1), steps=10**9)


@pytest.mark.parametrize(
    "options", [{}, {"resident": "on"}, {"steps_per_dispatch": 2}, {"compile": "pmap", "mesh": "data=1"}]
)
def test_prepared_labels_are_looked_at_too(wine, options):
    """What is prepared on the way is in no array: each batch is looked at, or, where the device prepares it,
    all of them.
    """
    x, y = wine
    prepared = ArrayPipeline(
        {"x": x, "y": y},
        batch=32,
        seed=0,
        prepare=lambda b: {"features": b["x"], "label": b["y"] + 1, "weight": b["weight"]},
    )
    with pytest.raises(
        ValueError, match=r"train, 'label': got 3 in row \d+ of batch \d+, example 1\d\d; expected"
    ):
        trained(TASK, prepared, steps=20, **options)


def test_an_example_of_weight_0_may_hold_anything(wine):
    x, y = wine
    weight = (y > 0).astype(np.float32)
    left_out = of_classes(x, np.where(y > 0, y, -1), weight=weight)
    assert trained(TASK, left_out, left_out).metrics["test/loss"] > 0
    check_batch(TASK, left_out.rows(0, 0, 32))


@pytest.mark.parametrize(
    ("weight", "got"), [(-1.0, "got -1.0 in row 1"), (np.nan, "got nan in row 1"), (np.inf, "got inf in")]
)
def test_weights_are_finite_and_not_below_0(weight, got):
    batch = {
        "features": np.zeros((3, 2), np.float32),
        "label": np.zeros(3, int),
        "weight": np.array([1, weight, 1], np.float32),
    }
    with pytest.raises(ValueError, match=f"the batch, 'weight': {got}.*; expected numbers of at least 0"):
        check_batch(TASK, batch)


# Whatever wraps a task passes on what it requires


@pytest.mark.parametrize(
    "wrapped",
    [
        lora(TASK, rank=1, alpha=1.0, paths="kernel"),
        start_from(TASK, {"head": {"bias": np.zeros(3, np.float32)}}),
        augmented(TASK, (), inputs="features"),
        start_from(lora(TASK, rank=1, alpha=1.0, paths="kernel"), {}),
    ],
)
def test_wrappers_require_what_the_task_requires(wrapped):
    batch = {
        "features": np.zeros((3, 2), np.float32),
        "label": np.array([0, 3, 1]),
        "weight": np.ones(3, np.float32),
    }
    with pytest.raises(ValueError, match=f"the batch, 'label': got 3 in row 1; {THREE}"):
        check_batch(wrapped, batch)


def test_mixed_examples_are_looked_at(wine):
    _, y = wine
    data = Mixed(
        ArrayPipeline({"image": np.zeros((len(y), 2, 2, 1), np.float32), "label": y + 1}, batch=32, seed=0)
    )
    task = classify(MLP((4,), 3))
    with pytest.raises(ValueError, match="'label': got 3 in row 130 of the data"):
        trained(task, data)


# Numbers that a device would change


def test_a_column_of_a_table_beyond_32_bits_is_refused_by_its_name(tmp_path):
    (tmp_path / "t.csv").write_text("x,y\n1,5000000000\n2,1\n")
    table = read_csv(tmp_path / "t.csv")

    def of(target):
        return ArrayPipeline({"features": table["x"][:, None].astype(np.float32), "target": target}, batch=2)

    task = regress(MLP((), 1), inputs="features")
    with pytest.raises(
        ValueError,
        match="'target': got 5000000000 in row 0 of the data; expected whole numbers from -2147483648",
    ):
        trained(task, of(table["y"]))
    measured = of(table["y"].astype(np.float32))
    result = trained(task, measured, measured, steps=0)
    assert result.metrics["test/mae"] == pytest.approx(
        2_500_000_000.5, rel=1e-6
    )  # of two targets, where nothing is learned


@pytest.mark.parametrize("key", ["features", "target"])
@pytest.mark.parametrize(
    ("values", "got"),
    [
        (np.array([1700000000.25, 1700000007.75]), "got 1700000007.75, which is 1700000000.0 as float32"),
        (np.array([1700000000, 1700000007], np.int32), "got 1700000007.0, which is 1700000000.0 as float32"),
        (np.array([1.0, 1e39]), "got 1e\\+39 in row 1 of the data; expected numbers up to 3.4e\\+38"),
    ],
)
def test_floats_that_would_become_equal_or_infinite_are_refused(key, values, got):
    arrays = {"features": np.zeros((2, 1), np.float32), "target": np.zeros(2, np.float32)}
    arrays[key] = values.reshape(arrays[key].shape)
    with pytest.raises(ValueError, match=f"train, '{key}': {got}"):
        trained(regress(MLP((), 1), inputs="features"), ArrayPipeline(arrays, batch=2))


def test_what_prepare_brings_into_range_is_right_and_does_not_go_to_the_device_before():
    seconds = np.array([1700000000.25, 1700000007.75])

    def less(b):
        return {
            "features": (b["time"] - 1.7e9)[:, None],
            "target": b["time"] - 1.7e9,
            "weight": b["weight"],
        }

    data = ArrayPipeline({"time": seconds}, batch=2, prepare=less)
    assert not resident.can_reside(data)
    trained(regress(MLP((), 1), inputs="features"), data)
    with pytest.raises(ValueError, match="--resident on"):
        trained(regress(MLP((), 1), inputs="features"), data, resident="on")


def test_a_key_that_the_task_does_not_use_may_hold_anything(wine):
    x, y = wine
    trained(TASK, of_classes(x, y, id=np.arange(len(y)) + 2**60))


# Tokens, spans, boxes and the rest


def gpt(V=11):
    return next_token(GPT(V, 6, 8, 1, 2))


def test_tokens_are_of_the_vocabulary():
    tokens = np.arange(60) % 12
    for data in (
        WindowPipeline(tokens, length=6, batch=4),
        WindowPipeline(tokens.astype(np.uint8), length=6, batch=4, seed=1),
    ):
        with pytest.raises(
            ValueError,
            match="'inputs': got 11 in row 11 of the data; expected whole numbers from 0 to 10, the model's",
        ):
            trained(gpt(), data)


def test_a_mapped_file_of_tokens_is_not_read_whole_and_each_batch_is_looked_at(tmp_path):
    tokens = np.arange(60) % 11
    tokens[20] = 2**32 + 5
    np.save(tmp_path / "t.npy", tokens)
    data = WindowPipeline(np.load(tmp_path / "t.npy", mmap_mode="r"), length=6, batch=4)
    assert data.columns() == {}
    with pytest.raises(
        ValueError, match="tokens: got 4294967301; expected whole numbers from -2147483648 to 2147483647"
    ):
        trained(gpt(), data, steps=3)


def test_what_is_left_out_by_weight_0_may_be_minus_100_among_the_targets_alone():
    tokens = np.ones((2, 6), np.int32)
    batch = {
        "inputs": tokens,
        "targets": np.where(np.arange(6) < 3, tokens, -100),
        "weight": np.ones((2, 6), np.float32),
    }
    with pytest.raises(
        ValueError, match="'targets': got -100 in row 0 at 3; expected whole numbers from 0 to 10"
    ):
        check_batch(gpt(), batch)
    batch["weight"][:, 3:] = 0
    check_batch(gpt(), batch)
    with pytest.raises(ValueError, match="'inputs': got -100 in row 0 at 3"):
        check_batch(gpt(), {**batch, "inputs": batch["targets"]})


def test_texts_in_buckets_are_looked_at():
    task = next(tiny for tiny in TINY if tiny.name == "textcnn-dropout").task
    texts = TextPipeline({**join([[1, 2, 11], [3], [4, 5]]), "label": np.arange(3)}, length=4, batch=2)
    with pytest.raises(
        ValueError, match="'inputs': got 11 in row 2 of the data; expected whole numbers from 0 to 10"
    ):
        trained(task, Buckets(texts, lengths=(2, 4)))


def changed(name, key, at, value):
    tiny = next(tiny for tiny in TINY if tiny.name == name)
    batch = {k: x.copy() for k, x in tiny.batch.items()}
    batch[key][at] = value
    return tiny.task, batch


@pytest.mark.parametrize(
    ("name", "key", "at", "value", "match"),
    [
        (
            "fcos",
            "classes",
            (2, 1),
            2,
            "got 2 in row 2 at 1; expected whole numbers from 0 to 1, the model's 2 classes",
        ),
        ("fcos", "boxes", (1, 0), [5, 1, 3, 2], r"got \[5. 1. 3. 2.\] in row 1; expected .*y0 not above y1"),
        (
            "fcos",
            "boxes",
            (1, 0, 2),
            np.nan,
            "got .* in row 1; expected finite numbers, boxes as y0 x0 y1 x1",
        ),
        (
            "fcos",
            "present",
            (0, 0),
            3,
            "got 3.0 in row 0 at 0; expected numbers from 0 to 1, 1 for a box and 0 for none",
        ),
        (
            "bert-span",
            "end",
            3,
            6,
            "got 6 in row 3; expected whole numbers from 0 to 5, the answer's position",
        ),
        ("bert-span", "start", 3, -1, "got -1 in row 3; expected"),
        ("bert-span", "types", (0, 0), 2, "got 2 in row 0 at 0; expected whole numbers from 0 to 1"),
        (
            "bert-span",
            "segments",
            (0, 0),
            -1,
            "got -1 in row 0 at 0; expected whole numbers of at least 0, numbers of the texts",
        ),
        (
            "bert-masked",
            "inputs",
            (1, 2),
            11,
            "got 11 in row 1 at 2; expected whole numbers from 0 to 10, the model's 11 tokens",
        ),
        ("transformer", "source", (1, 2), 11, "got 11 in row 1 at 2; expected whole numbers from 0 to 10"),
        ("transformer", "targets", (1, 2), -1, "got -1 in row 1 at 2"),
        (
            "textcnn-dropout",
            "inputs",
            (1, 2),
            -100,
            "got -100 in row 1 at 2; expected whole numbers from 0 to 10",
        ),
        (
            "bert-classify-dropout",
            "inputs",
            (1, 2),
            11,
            "got 11 in row 1 at 2; expected whole numbers from 0 to 10",
        ),
        (
            "mlp-regress",
            "target",
            (1, 1),
            np.nan,
            "got nan in row 1 at 1; expected finite numbers, what the model's 2 outputs",
        ),
    ],
)
def test_each_task_says_what_its_keys_hold(name, key, at, value, match):
    with pytest.raises(ValueError, match=f"the batch, '{key}': {match}"):
        check_batch(*changed(name, key, at, value))


@pytest.mark.parametrize("tiny", TINY, ids=str)
def test_the_batches_of_every_task_are_what_it_requires(tiny):
    check_batch(tiny.task, tiny.batch)
    shapes = {key: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for key, x in tiny.batch.items()}
    required = tiny.task.requires(shapes, *jax.eval_shape(tiny.task.init, jax.random.key(0), shapes))
    assert {*tiny.batch} - {"label", "image"} <= {*required}  # of the keys that a task uses none is left out


def test_an_answer_outside_of_the_context_or_behind_its_end_is_refused():
    tiny = next(tiny for tiny in TINY if tiny.name == "bert-span")
    task, batch = changed("bert-span", "context", (0, 0), 0)
    with pytest.raises(
        ValueError,
        match=r"'start': got 0 in row 0; expected .* where 'context' is 1, the start not after the end",
    ):
        check_batch(task, batch)
    swapped = {**tiny.batch, "start": tiny.batch["end"], "end": tiny.batch["start"]}
    with pytest.raises(ValueError, match="the start not after the end"):
        check_batch(question_answering(SpanModel(Bert(11, 6, 8, 2, 2, 12))), swapped)


def test_a_target_of_another_shape_is_used_rightly_or_refused():
    """(N, 1) against (N,) would be (N, N): the error of each with every other."""
    x = np.zeros((4, 2), np.float32)
    task = regress(MLP((), 1), inputs="features")
    for target in (np.arange(4.0, dtype=np.float32), np.arange(4.0, dtype=np.float32)[:, None]):
        data = ArrayPipeline({"features": x, "target": target}, batch=4)
        assert trained(task, data, data, steps=0).metrics["test/mae"] == pytest.approx(1.5)
    with pytest.raises(
        ValueError,
        match=re.escape("'target': got the shape (N, 2); expected (N, 1), what the model's 1 outputs"),
    ):
        trained(task, ArrayPipeline({"features": x, "target": np.zeros((4, 2), np.float32)}, batch=4))


# What it costs


def test_a_batch_of_arrays_that_were_looked_at_is_not_looked_at_again(wine, monkeypatch):
    x, y = wine
    data = of_classes(x, y)
    shapes = jax.eval_shape(TASK.init, jax.random.key(0), empty_batch(data, 1))
    check = Checker(TASK, data, "train", *shapes)
    check.start()
    monkeypatch.setattr(check_batches, "_check_values", None)
    check(data.rows(0, 0, 32), 0, 0)


def test_a_batch_is_looked_at_in_a_hundredth_of_a_short_step(wine):
    x, y = wine
    data = of_classes(x, y)
    check = Checker(TASK, data, "train", *jax.eval_shape(TASK.init, jax.random.key(0), empty_batch(data, 1)))
    check.settled = set()  # as of data that come in batches alone
    batch, took = data.rows(0, 0, 32), []
    for _ in range(50):
        begun = time.perf_counter()
        check(batch, 0, 0)
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.01 * 0.005
