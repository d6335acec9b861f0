"""The best monotonic alignment against a search through all of them."""

from __future__ import annotations

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmodels.layers.monotonic_alignment import aligned_durations

pytestmark = pytest.mark.fast

align = jax.jit(aligned_durations)
L, T = 4, 7
SIZES = [(4, 7), (1, 7), (3, 3), (4, 4), (2, 5), (1, 1), (3, 6)]  # phonemes and frames of each example


def by_search(score_LT):
    """The durations whose frames have the greatest sum of scores, of all that give each phoneme a frame."""
    count, frames = score_LT.shape
    found = []
    for cuts in combinations(range(1, frames), count - 1):
        durations = np.diff([0, *cuts, frames])
        label_T = np.repeat(np.arange(count), durations)
        found.append((score_LT[label_T, np.arange(frames)].sum(), durations.tolist()))
    return max(found)[1]


def masks(sizes):
    label_BL = np.arange(L) < np.array(sizes)[:, :1]
    return jnp.asarray(label_BL), jnp.asarray(np.arange(T) < np.array(sizes)[:, 1:])


@pytest.mark.parametrize("seed", range(3))
def test_durations_are_those_of_a_search_through_all_alignments(seed):
    score_BLT = np.random.default_rng(seed).normal(size=(len(SIZES), L, T)).astype(np.float32)
    found_BL = np.asarray(align(jnp.asarray(score_BLT), *masks(SIZES)))
    for score_LT, (count, frames), durations in zip(score_BLT, SIZES, found_BL, strict=True):
        assert durations[:count].tolist() == by_search(score_LT[:count, :frames])
        assert not durations[count:].any()


def test_with_too_few_frames_the_first_phonemes_have_one_each():
    score_BLT = jnp.zeros((2, L, T))
    assert np.asarray(align(score_BLT, *masks([(4, 2), (3, 1)]))).tolist() == [[1, 1, 0, 0], [1, 0, 0, 0]]
