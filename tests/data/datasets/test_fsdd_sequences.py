"""Random sequences of spoken digits; they need the real recordings."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.bucketing import Buckets
from jaxmodels.data.datasets.fsdd import SPEAKERS, recordings
from jaxmodels.data.datasets.fsdd_sequences import fsdd_sequences


@pytest.fixture
def folder(real):
    pytest.importorskip("soundfile", reason="needs soundfile")
    return real("fsdd")


def test_a_sequence_is_recordings_of_one_speaker_with_pauses(folder):
    data = fsdd_sequences("test", 8, count=30, pause=(0.1, 0.2), folder=folder)
    batch, bank = data.rows(0, 0, 8), recordings("test", folder=folder)
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)
    for row, i in enumerate(data.indices(0, 0, 8)):
        chosen = data.arrays["recording"][i]
        chosen = chosen[chosen >= 0]
        assert batch["labels"][row].tolist() == [*(bank["label"][chosen] + 1), *[0] * (7 - len(chosen))]
        assert set(bank["speaker"][chosen]) == {batch["speaker"][row]}
        at = data.arrays["pause"][i][0]
        for one, pause in zip(chosen, data.arrays["pause"][i][1:], strict=False):
            sound = bank["audio"][bank["offsets"][one] : bank["offsets"][one + 1]] / np.float32(2**15)
            assert np.array_equal(batch["audio"][row][at : at + len(sound)], sound[: 48_000 - at])
            at += len(sound) + pause
            assert 800 <= pause <= 1_600
        assert batch["segments"][row].sum() == min(at, 48_000)


def test_sequences_fill_buckets_and_depend_on_nothing_but_their_key(folder):
    def data(**more):
        return fsdd_sequences("test", 8, 0, count=200, folder=folder, speed=(0.8, 1.2), **more)

    buckets = Buckets(data(), lengths=(16_000, 28_000, 48_000), pool=8)
    shapes = [buckets.rows(step, 0, 8)["audio"].shape[1] for step in range(8)]
    assert len(set(shapes)) > 1
    one, same, other = data(), data(), data(key=1)
    assert np.array_equal(one.rows(3, 0, 8)["audio"], same.rows(3, 0, 8)["audio"])
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert one.resident() is None and one.columns() == {}


def test_a_speaker_who_is_left_out_is_in_no_sequence(folder):
    known = [name for name in SPEAKERS if name != "theo"]
    data = fsdd_sequences("test", 100, count=100, speakers=known, folder=folder)
    assert set(data.rows(0, 0, 100)["speaker"]) == {SPEAKERS.index(name) for name in known}


def test_senseless_sequences_are_refused():
    with pytest.raises(ValueError, match=r"got digits=\(3, 1\).*expected at least 1 digit"):
        fsdd_sequences("test", 1, count=1, digits=(3, 1))
