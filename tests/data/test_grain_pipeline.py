"""GrainPipeline within one process; what worker processes add is in test_worker_processes."""

import sys
import threading
import time

import numpy as np
import pytest

from jaxmodels.data.formats.array_records import record_pipeline
from jaxmodels.data.grain_pipeline import GrainPipeline
from jaxmodels.pipeline import Pipeline

pytestmark = pytest.mark.fast


def load(i):
    return {"x": np.full(3, i, np.float32), "y": np.int32(i)}


def shift(example, rng):
    return {**example, "x": example["x"] + rng.random(3, np.float32)}


def make(n=23, **options):
    return GrainPipeline(range(n), **{"batch": 8, "load": load, "threads": 2, **options})


def equal(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


@pytest.mark.parametrize("remainder", ["wrap", "drop", "pad"])
@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("augment", [None, shift])
def test_rows_are_a_slice_of_the_batch(remainder, seed, augment):
    data = make(remainder=remainder, seed=seed, augment=augment)
    for step in (0, 1, 2, 7, 3):
        whole = data.rows(step, 0, 8)
        assert equal(data.rows(step, 3, 7), {name: x[3:7] for name, x in whole.items()})


@pytest.mark.parametrize("threads", [1, 5])
def test_the_batches_do_not_depend_on_threads(threads):
    plain, data = make(seed=1, augment=shift, threads=0), make(seed=1, augment=shift, threads=threads)
    assert all(equal(plain.rows(step, 0, 8), data.rows(step, 0, 8)) for step in range(9))


def test_reading_on_from_anywhere_gives_what_reading_through_gives():
    through = make(seed=1, augment=shift)
    batches = [through.rows(step, 0, 8) for step in range(12)]
    data = make(seed=1, augment=shift)
    for step in (7, 8, 9, 2, 3, 4, 5, 11, 10, 0, 1):
        assert equal(data.rows(step, 0, 8), batches[step])


def test_a_change_depends_on_the_position_alone():
    data, other = make(1, batch=16, seed=5, augment=shift), make(1, batch=4, seed=5, augment=shift)
    x = data.rows(0, 0, 16)["x"]
    assert np.array_equal(x[8:12], other.rows(2, 0, 4)["x"])
    assert len(np.unique(x)) == 48 and not np.array_equal(
        x, make(1, batch=16, seed=6, augment=shift).rows(0, 0, 16)["x"]
    )


def test_padding_is_zeros_of_weight_zero():
    batch = make(n=10).rows(1, 0, 8)
    assert batch["weight"].tolist() == [1, 1, 0, 0, 0, 0, 0, 0]
    assert batch["y"].tolist() == [8, 9, 0, 0, 0, 0, 0, 0] and not batch["x"][2:].any()


def test_an_example_may_bring_its_own_weight():
    data = GrainPipeline(range(3), batch=4, load=lambda i: {"y": np.int32(i), "weight": np.float32([1, 0])})
    assert data.rows(0, 0, 4)["weight"].tolist() == [[1, 0], [1, 0], [1, 0], [0, 0]]


def test_the_next_batches_are_loaded_while_nobody_asks():
    loaded = []
    data = GrainPipeline(range(1000), batch=4, load=lambda i: loaded.append(i) or load(i), threads=2, ahead=3)
    data.rows(0, 0, 4)
    until = time.monotonic() + 10
    while len(loaded) < 4 * (1 + 3) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(loaded) >= 4 * (1 + 3)


def test_a_stray_look_at_another_batch_does_not_disturb_reading_on():
    data = make(n=1000, seed=2)
    data.rows(0, 0, 8)
    stream = data._stream
    data.rows(40, 2, 3)
    data.rows(1, 0, 8)
    assert data._stream is stream


def test_the_next_evaluation_goes_on_where_the_last_one_ended():
    data = make(n=20)
    first = [data.rows(step, 0, 8) for step in range(3)]
    stream = data._stream
    assert all(equal(data.rows(step, 0, 8), first[step]) for step in range(3)) and data._stream is stream


def test_threads_that_ask_at_once_get_what_they_asked_for():
    data, plain = make(seed=1), make(seed=1, threads=0)
    expected = [plain.rows(step, 0, 8) for step in range(10)]
    wrong = []

    def read(steps):
        wrong.extend(step for step in steps if not equal(data.rows(step, 0, 8), expected[step]))

    threads = [
        threading.Thread(target=read, args=(steps,))
        for steps in (range(10), range(9, -1, -1), range(0, 10, 3))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_building_reads_nothing():
    def fail(*args):
        raise AssertionError("it was read")

    data = GrainPipeline(fail, batch=2, load=fail, spec={"x": ((), np.dtype(np.float32))})
    assert dict(data.spec) == {"x": ((), np.float32), "weight": ((), np.float32)} and data.resident() is None


def test_spec_tells_the_shapes_of_a_batch():
    data = make(augment=shift)
    assert {name: (x.shape[1:], x.dtype) for name, x in data.rows(0, 0, 8).items()} == dict(data.spec)
    assert isinstance(data, Pipeline)


def bad(i):
    if i == 5:
        raise OSError("not an image")
    return load(i)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_in_load_names_the_example_and_says_what_it_said_every_time(threads):
    data = GrainPipeline(
        [f"{i}.png" for i in range(9)], batch=4, load=lambda name: bad(int(name[0])), threads=threads
    )
    assert data.rows(0, 0, 4)["y"].tolist() == [0, 1, 2, 3]
    for _ in range(2):
        with pytest.raises(
            ValueError, match=r"example 5 \('5\.png'\) could not be loaded: OSError: not an image"
        ):
            data.rows(1, 0, 4)
    assert data.rows(2, 0, 4)["y"].tolist() == [8, 0, 0, 0]


def test_an_example_of_another_shape_is_named():
    data = GrainPipeline(range(9), batch=4, load=lambda i: {"x": np.zeros(4 if i == 6 else 3)})
    with pytest.raises(ValueError, match=r"example 6 \(6\): got x of \(\(4,\), .*expected \(\(3,\)"):
        data.rows(1, 0, 4)
    other = GrainPipeline(range(9), batch=4, load=lambda i: {"y": 1} if i == 6 else {"x": 1})
    with pytest.raises(ValueError, match=r"example 6 \(6\): (got x of None|got y of .* expected None)"):
        other.rows(1, 0, 4)


@pytest.mark.parametrize("rows", [(-1, 0, 8), (0, 0, 9), (0, 4, 4), (0, -1, 3)])
def test_rows_that_are_not_there_are_refused(rows):
    with pytest.raises(ValueError, match="expected rows from 0 to 8"):
        make().rows(*rows)


def test_an_empty_source_is_refused():
    with pytest.raises(ValueError, match="empty source"):
        make(n=0).rows(0, 0, 8)


def decode(record):
    return {"x": np.frombuffer(record, np.int32)}


def write_records(path, values):
    module = pytest.importorskip("array_record.python.array_record_module")
    writer = module.ArrayRecordWriter(str(path), "group_size:1")
    for value in values:
        writer.write(np.int32([value]).tobytes())
    writer.close()


@pytest.mark.skipif(sys.platform != "linux", reason="array_record has no readers elsewhere")
def test_records_of_several_files_are_one_stream(tmp_path):
    paths = [tmp_path / "a.arrayrecord", tmp_path / "b.arrayrecord"]
    write_records(paths[0], range(5))
    write_records(paths[1], range(5, 12))
    data = record_pipeline(paths, decode, batch=4, threads=2)
    seen = [data.rows(step, 0, 4)["x"][:, 0].tolist() for step in range(data.steps)]
    assert seen == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_record_files_that_are_missing_or_damaged_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.arrayrecord"):
        record_pipeline(tmp_path / "gone.arrayrecord", decode, batch=1).rows(0, 0, 1)
    (tmp_path / "cut.arrayrecord").write_bytes(b"nothing of the kind")
    with pytest.raises(ValueError, match=r"cut\.arrayrecord"):
        record_pipeline(tmp_path / "cut.arrayrecord", decode, batch=1).rows(0, 0, 1)
