"""Which token may come next, against transformers' own processors of logits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from speech.small import SYMBOLS, TIMES, V

from jaxmodels.speech.rules import Written, allowed

pytestmark = pytest.mark.fast
THEN = jax.jit(lambda written, token_B: written.then(token_B, SYMBOLS))
STEP = jax.jit(lambda logits, written: allowed(logits, written, SYMBOLS))


def after(tokens):
    written = Written.nothing(1)
    for token in tokens:
        written = THEN(written, np.array([token], np.int32))
    return written


def theirs(tokens, logits):
    """What transformers leaves of the logits."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.generation import logits_process as process

    config = transformers.GenerationConfig(
        no_timestamps_token_id=SYMBOLS.no_times, eos_token_id=SYMBOLS.end, max_initial_timestamp_index=50
    )
    processors = [
        process.SuppressTokensAtBeginLogitsProcessor(list(SYMBOLS.first_suppressed), 1, device="cpu"),
        process.SuppressTokensLogitsProcessor(list(SYMBOLS.suppressed), device="cpu"),
        process.WhisperTimeStampLogitsProcessor(config, begin_index=1),
    ]
    ids, scores = torch.tensor([[SYMBOLS.start, *tokens]]), torch.tensor(logits)[None]
    for one in processors:
        scores = one(ids, scores)
    return scores[0].numpy()


def texts():
    """Texts with times as the model may write them, one of every kind of end."""
    random = np.random.default_rng(0)
    kinds = [[], [TIMES], [TIMES, 7], [TIMES, 7, TIMES + 3], [TIMES, 7, TIMES + 3, TIMES + 3]]
    for _ in range(20):
        tokens, time = [TIMES + int(random.integers(3))], TIMES + 3
        for _ in range(random.integers(1, 4)):
            tokens += random.integers(6, 30, random.integers(1, 4)).tolist()
            time = min(V - 1, time + int(random.integers(4)))
            tokens += [time] * random.integers(0, 3)
        kinds.append(tokens)
    return kinds


@pytest.mark.slow
def test_what_may_come_next_is_what_transformers_allows():
    random = np.random.default_rng(1)
    seen = set()
    for tokens in texts():
        written = after(tokens)
        for times in (-4.0, 0.0, 4.0):  # unlikely, as likely as text, likelier
            logits = random.normal(size=V).astype(np.float32)
            logits[TIMES:] += times
            got, want = np.asarray(STEP(logits[None], written)[0]), theirs(tokens, logits)
            np.testing.assert_array_equal(np.isfinite(got), np.isfinite(want), str(tokens))
            np.testing.assert_allclose(got[np.isfinite(got)], want[np.isfinite(want)])
            seen.add(np.isfinite(got).tobytes())
    assert len(seen) > 10


def test_each_row_has_its_own_text():
    logits = np.random.default_rng(2).normal(size=(2, V)).astype(np.float32)
    rows = [after([TIMES, 7]), after([TIMES, 7, TIMES + 3])]
    both = Written(*(jnp.concatenate(parts, 1) for parts in zip(*rows, strict=True)))
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(STEP(logits, both)[i], STEP(logits[i : i + 1], row)[0])


def test_without_times_only_what_is_suppressed_is_missing():
    got = allowed(jnp.zeros((1, V)), Written.nothing(1), SYMBOLS, times=False)
    assert np.flatnonzero(~np.isfinite(got[0])).tolist() == [3, 4, 5, 30, 38]
    got = allowed(jnp.zeros((1, V)), after([7]), SYMBOLS, times=False)
    assert np.flatnonzero(~np.isfinite(got[0])).tolist() == [3, 4, 38]
