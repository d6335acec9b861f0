"""Batches on their way to the devices."""

from __future__ import annotations

import threading
import time

import jax
import numpy as np
import pytest

from jaxmodels.data.pipeline import ArrayPipeline
from jaxmodels.parallel.mesh import batch_ways, make_mesh
from jaxmodels.parallel.placement import batch_sharding
from jaxmodels.pipeline import Pipeline
from jaxmodels.training import feed, resident
from jaxmodels.training.batches import stack_steps

pytestmark = pytest.mark.fast

BATCH = 16


def data(n: int = 100, **options) -> ArrayPipeline:
    arrays = {"x": np.arange(3 * n, dtype=np.float32).reshape(n, 3), "id": np.arange(n, dtype=np.int32)}
    return ArrayPipeline(arrays, batch=BATCH, seed=5, **options)


def dispatches(pipeline, mesh, segments, *, resident=False) -> list[feed.Dispatch]:
    with feed.Feed(pipeline, make_mesh(mesh), segments, resident=resident) as feeding:
        return list(feeding.until())


@pytest.mark.parametrize("mesh", ["data=8", "data=2,fsdp=4", "data=2", "data=2,model=4"])
def test_every_device_holds_its_own_rows_of_a_batch_and_no_others(mesh):
    parts = batch_ways(make_mesh(mesh))
    (got,) = dispatches(data(), mesh, [(3, 5)])
    wanted = np.stack([data().rows(n, 0, BATCH)["x"] for n in (3, 4)])
    shards = got.inputs["x"].addressable_shards
    assert {shard.data.shape for shard in shards} == {(2, BATCH // parts, 3)}
    assert len({shard.index[1].start for shard in shards}) == parts
    for shard in shards:
        np.testing.assert_array_equal(shard.data, wanted[shard.index])


def test_segments_come_in_order_with_the_batches_of_their_steps():
    segments = [(0, 1), (1, 4), (4, 5)]
    got = dispatches(data(), "data=1", segments)
    assert [(d.start, d.stop) for d in got] == segments
    for d in got:
        ids = np.stack([data().rows(n, 0, BATCH)["id"] for n in range(d.start, d.stop)])
        np.testing.assert_array_equal(d.inputs["id"], ids)


@pytest.mark.parametrize("remainder", ["wrap", "pad"])
@pytest.mark.parametrize("mesh", ["data=1", "data=8"])
def test_a_resident_data_set_gives_the_same_batches_split_alike(mesh, remainder):
    pipeline, devices = data(n=39, remainder=remainder), make_mesh(mesh)
    (got,) = dispatches(pipeline, mesh, [(1, 4)], resident=True)
    assert (got.inputs.shape, got.inputs.dtype) == ((3, BATCH), np.int32)
    split = batch_sharding(devices, 1)
    gathered = jax.jit(resident.unpack(pipeline, True, split))(
        resident.on_devices(pipeline, devices, True), got.inputs
    )
    for name, x in gathered.items():
        real = np.stack([pipeline.rows(n, 0, BATCH)["weight"] for n in (1, 2, 3)]) > 0
        wanted = np.stack([pipeline.rows(n, 0, BATCH)[name] for n in (1, 2, 3)])
        rows = slice(None) if name == "weight" else real
        np.testing.assert_array_equal(np.asarray(x)[rows], wanted[rows])
        assert {shard.data.shape[1] for shard in x.addressable_shards} == {BATCH // devices.size}


@pytest.mark.parametrize("limit", [1200 + 400, 1200 + 400 - 1])
def test_a_data_set_lies_on_the_device_up_to_a_limit(monkeypatch, limit):
    monkeypatch.setattr(resident, "RESIDENT_BYTES", limit)
    assert resident.can_reside(data()) == (limit >= 1600)


def test_a_data_set_that_the_host_changes_does_not_lie_on_the_device():
    assert not resident.can_reside(data(augment=(lambda batch, keys_B: batch,)))


def test_a_single_batch_is_not_copied():
    batch = data().rows(0, 0, BATCH)
    assert np.shares_memory(stack_steps([batch])["x"], batch["x"])


class Source(Pipeline):
    """A pipeline that does something before it answers."""

    batch, steps, spec = BATCH, 100, data().spec

    def __init__(self, before):
        self.before, self.asked = before, []

    def rows(self, step, start, stop):
        self.asked.append(step)
        self.before(step)
        return data().rows(step, start, stop)


def test_it_reads_ahead_but_not_without_end():
    source = Source(lambda step: None)
    feeding = feed.Feed(
        source, make_mesh("data=1"), ((n, n + 1) for n in range(100)), resident=False, depth=2
    )
    next(feeding.until())
    deadline = time.monotonic() + 5
    while len(source.asked) < 4 and time.monotonic() < deadline:  # one taken, two ready, one in hand
        time.sleep(0.01)
    time.sleep(0.1)
    assert source.asked == [0, 1, 2, 3]
    feeding.__exit__()


def test_an_error_of_the_data_source_comes_up_where_its_batch_is_wanted():
    def fail(step):
        if step == 2:
            raise OSError("disk 3 does not answer")

    feeding = feed.Feed(Source(fail), make_mesh("data=1"), ((n, n + 1) for n in range(9)), resident=False)
    dispatches = feeding.until()
    assert [next(dispatches).start for _ in range(2)] == [0, 1]
    with pytest.raises(OSError, match="disk 3 does not answer"):
        next(dispatches)
    feeding.__exit__()


def test_closing_ends_the_thread_though_nobody_takes_what_is_ready():
    before = threading.active_count()
    feeding = feed.Feed(data(), make_mesh("data=1"), ((n, n + 1) for n in range(100)), resident=False)
    feeding.__exit__()
    assert threading.active_count() == before


@pytest.mark.parametrize("busy", [True, False])
def test_waiting_counts_as_idle_only_while_the_device_has_nothing_to_do(busy):
    feeding = feed.Feed(Source(lambda step: time.sleep(0.2)), make_mesh("data=1"), [(0, 1)], resident=False)
    next(feeding.until(busy=lambda: busy))
    feeding.__exit__()
    assert feeding.idle == 0 if busy else feeding.idle > 0.1
    assert feeding.reading > 0.15
