"""Recordings of different lengths in one batch. S samples."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.data.augment_audio import gain, speed
from jaxmodels.data.recordings import RecordingPipeline, join_audio

pytestmark = pytest.mark.fast
SOUNDS = [np.arange(1, n + 1, dtype=np.int16) for n in (3, 9, 1, 6)]
ARRAYS = {**join_audio(SOUNDS), "label": np.arange(4)}


def test_sounds_are_padded_truncated_and_scaled_and_their_padding_is_marked():
    data = RecordingPipeline(lambda: ARRAYS, length=6, batch=5)
    batch = data.rows(0, 0, 5)
    assert batch["segments"].sum(1).tolist() == [3, 6, 1, 6, 0] and batch["weight"].tolist() == [
        1,
        1,
        1,
        1,
        0,
    ]
    for row, sound in zip(batch["audio"], SOUNDS, strict=False):
        want = sound[:6] / 2**15
        assert row.tolist() == [*want, *[0] * (6 - len(want))]
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)
    assert "1 to 9 samples, 25.0% truncated to 6" in data.describe() and "audio" not in data.columns()
    floats = RecordingPipeline({**ARRAYS, "audio": ARRAYS["audio"] / np.float32(2**15)}, length=6, batch=5)
    assert np.array_equal(floats.rows(0, 0, 5)["audio"], batch["audio"])


def test_host_and_device_gather_alike():
    data = RecordingPipeline(ARRAYS, length=6, batch=4, seed=1)
    on_device = data.gather({n: jnp.asarray(x) for n, x in data.resident().items()}, data.indices(0, 0, 4))
    for name, x in data.rows(0, 0, 4).items():
        assert np.array_equal(on_device[name], x), name


def test_changes_of_the_host_depend_on_the_row_alone_and_keep_the_data_off_the_device():
    spec = {"label": ((), np.dtype(np.int64))}
    data = RecordingPipeline(
        lambda: ARRAYS, length=9, batch=4, seed=3, spec=spec, augment=(gain(), speed(0.5, 2.0))
    )
    batch = data.rows(2, 0, 4)
    assert data.resident() is None and [*data.columns()] == ["label"]
    assert all(np.array_equal(data.rows(2, 1, 3)[name], x[1:3]) for name, x in batch.items())
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)
    lengths = [len(SOUNDS[i]) for i in batch["label"]]
    assert batch["segments"].sum(1).tolist() != lengths


def test_recordings_that_do_not_fit_their_offsets_are_refused():
    with pytest.raises(ValueError, match="expected numbers that never fall"):
        RecordingPipeline({**ARRAYS, "offsets": np.array([0, 3, 99])}, length=6, batch=4).rows(0, 0, 4)
