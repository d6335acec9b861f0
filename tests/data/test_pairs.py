from __future__ import annotations

import numpy as np
import pytest

from jaxmodels.data.bucketing import Buckets
from jaxmodels.data.datasets import tanaka
from jaxmodels.data.datasets.scitldr import scitldr
from jaxmodels.data.pairs import pairs

pytestmark = pytest.mark.fast

PAIRS = [([5, 6, 7, 8], [9]), ([5], [10, 11, 12, 13]), ([], [14, 15])]
SIZES = {"source_length": 3, "target_length": 4, "begin": 1, "end": 2}


def test_the_inputs_begin_the_targets_end_and_the_rest_is_padding():
    batch = pairs(lambda: PAIRS, **SIZES, batch=3).rows(0, 0, 3)
    want = {
        "source": [[5, 6, 7], [5, 0, 0], [0, 0, 0]],
        "source_segments": [[1, 1, 1], [1, 0, 0], [0, 0, 0]],
        "inputs": [[1, 9, 0, 0], [1, 10, 11, 12], [1, 14, 15, 0]],
        "targets": [[9, 2, 0, 0], [10, 11, 12, 13], [14, 15, 2, 0]],
        "weight": [[1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]],
    }
    assert {name: x.tolist() for name, x in batch.items()} == want


def test_the_last_batch_is_filled_up_with_weight_zero():
    data = pairs(lambda: PAIRS, **SIZES, batch=2)
    assert data.steps == 2 and data.rows(1, 0, 2)["weight"].sum(1).tolist() == [3, 0]


def test_the_spec_is_known_before_anything_is_read():
    def fail():
        raise AssertionError("read")

    data, read = pairs(fail, **SIZES, batch=2), pairs(lambda: PAIRS, **SIZES, batch=2)
    assert {name: (x.shape[1:], x.dtype) for name, x in read.rows(0, 0, 2).items()} == dict(data.spec)


def test_no_pairs_and_no_length_are_refused():
    with pytest.raises(ValueError, match="pairs: got none; expected at least one"):
        pairs(lambda: [], **SIZES, batch=2).rows(0, 0, 2)
    with pytest.raises(ValueError, match="got lengths of 0 and 4 tokens; expected at least 1 each"):
        pairs(lambda: PAIRS, **{**SIZES, "source_length": 0}, batch=2)


def test_tanaka_is_complete_and_few_of_its_words_are_unknown(real):
    folder = real("tanaka_enja")
    sizes = {split: len(tanaka.sentences(split, folder=folder)) for split in ("train", "dev", "test")}
    assert sizes == {"train": 50_000, "dev": 500, "test": 500}
    tokens = [
        token
        for pair in tanaka.sentences("test", folder=folder)
        for s in pair
        for token in tanaka.encode(s, folder=folder)
    ]
    assert max(tokens) < tanaka.WORDS and 0.005 < np.mean(np.array(tokens) == tanaka.UNKNOWN) < 0.02


def test_tanakas_known_words_survive_their_numbers(real):
    folder = real("tanaka_enja")
    sentence = "自分 の 事 を しろ 。 show your own business ."
    assert tanaka.decode(tanaka.encode(sentence, folder=folder), folder=folder) == sentence
    assert tanaka.encode("<unk> <s> </s> 。", folder=folder) == [tanaka.UNKNOWN, tanaka.BEGIN, tanaka.END, 3]
    assert tanaka.encode("qwertz", folder=folder) == [tanaka.UNKNOWN]


def test_scitldr_has_abstracts_with_one_summary_to_train_and_several_to_test(real):
    folder = real("scitldr")
    papers = {split: scitldr(split, folder=folder) for split in ("train", "dev", "test")}
    assert {split: len(found) for split, found in papers.items()} == {"train": 1992, "dev": 619, "test": 618}
    assert {len(paper.summaries) for paper in papers["train"]} == {1}
    assert {len(paper.summaries) for paper in papers["test"]} == {2, 3, 4}
    assert papers["test"][0].lead.startswith("Incremental class learning involves")


@pytest.mark.parametrize("read", [tanaka.sentences, scitldr])
def test_missing_files_and_unknown_splits_are_named(read, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"got no .*train.*Get them from https://github.com"):
        read("test", folder=tmp_path)
    with pytest.raises(ValueError, match="got split='validation'; expected one of 'train', 'dev', 'test'"):
        read("validation", folder=tmp_path)


def test_pairs_in_buckets_are_the_same_pairs_in_shorter_rows():
    random = np.random.default_rng(0)
    texts = [
        (
            random.integers(5, 99, random.integers(0, 9)).tolist(),
            random.integers(5, 99, random.integers(0, 12)).tolist(),
        )
        for _ in range(45)
    ]
    data = pairs(lambda: texts, source_length=8, target_length=12, begin=1, end=2, batch=4, seed=3)
    lengths = ((3, 4), (5, 8), (8, 12))
    buckets = Buckets(data, lengths=lengths, pool=6)
    shapes, seen = set(), []
    for step in range(buckets.steps):
        batch, whole = buckets.rows(step, 0, 4), data.gather(data.arrays, buckets.indices(step, 0, 4))
        S, T = batch["source"].shape[1], batch["inputs"].shape[1]
        shapes.add((S, T))
        need = (whole["source_segments"].sum(1).max(), int(whole["weight"].sum(1).max()))
        assert next(pair for pair in lengths if need[0] <= pair[0] and need[1] <= pair[1]) == (S, T)
        for name, x in whole.items():
            assert (batch[name] == x[:, : batch[name].shape[1]]).all() and not x[
                :, batch[name].shape[1] :
            ].any()
        seen += [(int(a.sum()), int(b.sum())) for a, b in zip(whole["source"], whole["targets"], strict=True)]
        assert (buckets.rows(step, 1, 3)["source"] == batch["source"][1:3]).all()
    assert shapes <= {*lengths} and len(shapes) > 1
    plain = [data.rows(step, 0, 4) for step in range(data.steps)]
    assert sorted(seen) == sorted(
        (int(a.sum()), int(b.sum())) for x in plain for a, b in zip(x["source"], x["targets"], strict=True)
    )


def test_one_number_is_the_length_of_both_texts_as_far_as_they_go():
    data = pairs(lambda: PAIRS, **SIZES, batch=2)
    assert Buckets(data, lengths=(2, 4)).rows(1, 0, 2)["source"].shape[1] <= 3
    with pytest.raises(ValueError, match=r"expected lengths that rise to \(3, 4\), the pipeline's"):
        Buckets(data, lengths=((3, 2), (2, 4)))
