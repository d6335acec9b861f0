"""What every encoder-decoder does: causality, padded sources, packing, cache, gradients, types.

Dimensions: B batch, S tokens of the source, T of the target, L layers, V vocabulary.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from instances import first

from jaxmodels.models.t5 import T5
from jaxmodels.models.transformer import Transformer

B, S, T, V, L = 3, 6, 6, 11, 2
RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(0, V, (B, S)).astype(np.int32)
TARGET = RANDOM.integers(0, V, (B, T)).astype(np.int32)
SEGMENTS = (np.arange(S) < np.array([[6], [2], [4]])).astype(np.int32)
MODELS = {
    "transformer": Transformer(V, 8, L, 2, 12),
    "t5": T5(V, 8, L, 2, 3, 12, buckets=4, furthest=5),
}

fast = pytest.mark.fast


class Family(NamedTuple):
    """A model, parameters none of which is zero or one, and its compiled methods."""

    model: Any
    variables: Any
    apply: Any

    def logits(self, source=SOURCE, target=TARGET):
        return self.apply(source, target, None, SEGMENTS)


@pytest.fixture(scope="module", params=MODELS)
def family(request):
    model = MODELS[request.param]
    variables = jax.jit(model.init)(jax.random.key(0), SOURCE, TARGET)
    leaves, tree = jax.tree.flatten(variables)
    random = np.random.default_rng(1)
    leaves = [x + 0.3 * random.normal(size=x.shape).astype(np.float32) for x in leaves]
    variables = jax.tree.unflatten(tree, leaves)
    apply = jax.jit(model.apply, static_argnames="method")
    return Family(model, variables, partial(apply, variables))


@pytest.mark.slow
@fast
def test_no_logit_depends_on_a_later_token_of_the_target(family):
    changed = TARGET.copy()
    changed[:, 3] = (changed[:, 3] + 1) % V
    before, after = family.logits(), family.logits(target=changed)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.abs(after[:, 3:] - before[:, 3:]).max(-1).min() > 1e-4


def test_every_logit_depends_on_every_token_of_the_source(family):
    before = family.logits()
    for s in range(2):  # the shortest source has two
        changed = SOURCE.copy()
        changed[:, s] = (changed[:, s] + 1) % V
        assert np.abs(family.logits(changed) - before).max(-1).min() > 1e-5


@pytest.mark.slow
@fast
def test_padding_of_the_source_changes_nothing(family):
    changed = np.where(SEGMENTS == 0, (SOURCE + 3) % V, SOURCE)
    np.testing.assert_array_equal(family.logits(changed), family.logits())
    alone = family.apply(SOURCE[1:2, :2], TARGET[1:2])
    np.testing.assert_allclose(family.logits()[1:2], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@fast
def test_packed_pairs_equal_each_on_its_own(family):
    """The first has 3 tokens of the source and 2 of the target, the second 3 and 4."""
    source_segments, segments = np.array([[1, 1, 1, 2, 2, 2]]), np.array([[1, 1, 2, 2, 2, 2]], np.int32)
    [packed] = family.apply(SOURCE[:1], TARGET[:1], None, source_segments, segments)
    targets = np.stack([TARGET[0, :4], TARGET[0, 2:]])  # of the first, two more that change nothing
    alone = family.apply(SOURCE[0].reshape(2, 3), targets)
    np.testing.assert_allclose(packed, np.concatenate([alone[0, :2], alone[1]]), rtol=1e-4, atol=1e-5)


def in_chunks(family, chunks, counts):
    """(hidden states of each chunk, cache): the source is read with the first chunk alone."""
    memory = family.apply(SOURCE, None, SEGMENTS, method="encode"), SEGMENTS
    cache, parts = family.model.start(B, T + 3), []
    for chunk, count in zip(chunks, counts, strict=True):
        x_BTM, cache = family.apply(chunk, *memory, None, cache, count, method="hidden")
        memory = None, None
        parts.append(np.asarray(x_BTM))
    return parts, cache


@pytest.mark.slow
@fast
@pytest.mark.parametrize("sizes", [(6,), (1, 1, 1, 1, 1, 1), (3, 1, 2)], ids=str)
def test_reading_the_target_in_chunks_with_a_cache_equals_reading_it_at_once(family, sizes):
    chunks = np.split(TARGET, np.cumsum(sizes)[:-1], axis=1)
    parts, cache = in_chunks(family, chunks, [None] * len(sizes))
    logits = np.concatenate(parts, 1) @ family.variables["params"]["embed"]["embedding"].T
    np.testing.assert_allclose(logits, family.logits(), rtol=1e-4, atol=1e-5)
    leaves = jax.tree.leaves(cache)
    assert {x.shape[:2] for x in leaves} == {(L, B)} and len(leaves) == 6
    np.testing.assert_array_equal(cache.target.length_LB, T)


@pytest.mark.slow
@fast
def test_rows_of_different_lengths_continue_from_their_own_ends(family):
    all_counts = np.array([(1, 3, 2), (3, 2, 3), (2, 1, 1)], np.int32)
    chunks, read = [], np.zeros(B, int)
    for counts in all_counts:
        chunk = np.full((B, 3), 7, np.int32)
        for row, n in enumerate(counts):
            chunk[row, :n] = TARGET[row, read[row] : read[row] + n]
        chunks.append(chunk)
        read += counts
    np.testing.assert_array_equal(read, T)
    parts, _ = in_chunks(family, chunks, all_counts)
    for row in range(B):
        x_TM = np.concatenate(
            [part[row, : counts[row]] for part, counts in zip(parts, all_counts, strict=True)]
        )
        logits = x_TM @ family.variables["params"]["embed"]["embedding"].T
        np.testing.assert_allclose(logits, family.logits()[row], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@fast
def test_dtype_sets_the_type_of_products_and_cache(family):
    model = family.model.clone(dtype=jnp.bfloat16)
    logits, variables = jax.eval_shape(lambda: model.init_with_output(jax.random.key(0), SOURCE, TARGET))
    assert logits.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    assert model.start(B, T).target.k_LBSGD.dtype == jnp.bfloat16


@pytest.mark.parametrize("layout", first(1, [{"remat": "full"}, {"remat": "dots"}, {"unroll": 2}]), ids=str)
def test_rematerialization_and_unrolling_change_no_gradient(family, layout):
    keys_B = jax.random.split(jax.random.key(2), B)

    def gradient(model):
        def loss(variables):
            return jnp.sum(model.apply(variables, SOURCE, TARGET, keys_B, SEGMENTS) ** 2)

        return jax.jit(jax.grad(loss))(family.variables)

    model = family.model.clone(dropout=0.2)
    want, got = gradient(model), gradient(model.clone(**layout))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), got, want)


@pytest.mark.slow
@fast
def test_dropout_needs_keys_and_each_example_has_its_own(family):
    model = family.model.clone(dropout=0.3)
    same = [np.repeat(x[:1], B, 0) for x in (SOURCE, TARGET)]
    keys_B = jax.random.split(jax.random.key(0), B)
    apply = jax.jit(model.apply)
    random = apply(family.variables, *same, keys_B)
    assert min(np.abs(random[i] - random[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    np.testing.assert_array_equal(apply(family.variables, *same), family.apply(*same))
