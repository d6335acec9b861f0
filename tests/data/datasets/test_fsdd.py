"""The spoken digits and the keywords of shared data sets; every test but the last needs the real files."""

from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.bucketing import Buckets
from jaxmodels.data.datasets.fsdd import CLASSES, SPEAKERS, TAKES, fsdd, recordings
from jaxmodels.data.datasets.kws import kws


@pytest.fixture
def folder(real):
    pytest.importorskip("soundfile", reason="needs soundfile")
    return real("fsdd")


def test_every_speaker_says_every_digit_in_every_take(folder):
    for split, takes in TAKES.items():
        got = recordings(split, folder=folder)
        said = set(zip(got["speaker"].tolist(), got["label"].tolist(), got["take"].tolist(), strict=True))
        assert said == {(s, d, t) for s in range(6) for d in range(10) for t in takes}
        assert len(got["offsets"]) == 1 + 60 * len(takes) == 1 + len(said)
    assert {*TAKES["fit"], *TAKES["validation"]} == {*TAKES["train"]} == {*range(50)} - {*TAKES["test"]}


def test_a_batch_holds_whole_recordings_and_marks_their_padding(folder):
    data = fsdd("test", 30, folder=folder, speakers=("theo", "lucas"))
    batch = data.rows(1, 0, 30)
    assert {name: (x.shape[1:], x.dtype) for name, x in batch.items()} == dict(data.spec)
    assert set(batch["speaker"]) == {SPEAKERS.index("theo"), SPEAKERS.index("lucas")} and data.steps == 4
    held = recordings("test", folder=folder, speakers=("theo", "lucas"))
    for row, i in enumerate(data.indices(1, 0, 30)):
        sound = held["audio"][held["offsets"][i] : held["offsets"][i + 1]][:8_000]
        assert np.array_equal(batch["audio"][row][batch["segments"][row] > 0], sound / np.float32(2**15))
        assert not batch["audio"][row][batch["segments"][row] == 0].any()
        assert CLASSES[batch["label"][row]] == CLASSES[held["label"][i]]


def test_short_recordings_make_short_batches(folder):
    data = fsdd("train", 30, 0, folder=folder)
    buckets = Buckets(data, lengths=(3_000, 4_000, 5_000, 8_000), pool=16)
    shapes = [buckets.rows(step, 0, 30) for step in range(8)]
    for batch in shapes:
        S = batch["audio"].shape[1]
        longest = batch["segments"].sum(1).max()
        assert batch["segments"].shape == (30, S)
        assert min(n for n in (3_000, 4_000, 5_000, 8_000) if n >= longest) == S
    assert len({batch["audio"].shape for batch in shapes}) > 1


def test_the_keywords_are_those_of_the_benchmark(real):
    batch = kws("all", 1000, folder=real("kws")).rows(0, 0, 1000)
    assert batch["image"].shape == (1000, 49, 10, 1) and np.bincount(batch["label"]).min() > 50
    parts = [kws(split, 100, folder=real("kws"), fold=2) for split in ("train", "test")]
    assert [part.steps for part in parts] == [8, 2]


def test_what_there_is_not_is_refused_and_absent_files_are_named(tmp_path):
    with pytest.raises(ValueError, match="fsdd: got the speaker 'carol'; expected some of george"):
        fsdd("test", 1, speakers=("carol",))
    with pytest.raises(FileNotFoundError, match=r"got no fsdd\.tar\.gz; expected .* Get them from https"):
        fsdd("test", 1, folder=tmp_path).rows(0, 0, 1)
    with pytest.raises(FileNotFoundError, match=r"got no kws01\.npz; expected"):
        kws("all", 1, folder=tmp_path).rows(0, 0, 1)
