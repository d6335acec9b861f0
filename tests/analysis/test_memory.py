"""Where the device's memory was not enough: what fills it, and what to lower."""

from __future__ import annotations

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxmodels.analysis import memory

pytestmark = pytest.mark.fast


def test_the_message_on_memory_says_what_fills_it_and_what_to_lower():
    array = jax.ShapeDtypeStruct((1 << 18,), np.float32)
    state = SimpleNamespace(params=array, opt_state=(array, array), extra={})
    error = RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123456 bytes.")
    assert memory.is_out_of_memory(error)
    text = memory.out_of_memory(error, state, {"x": jax.ShapeDtypeStruct((8, 1024), np.float32)}, 2)
    assert "asked for 123456 bytes" in text
    assert "parameters 1.0 MiB, optimizer state 2.0 MiB" in text
    assert "one batch 32.0 KiB" in text
    assert "--accumulate 4" in text


def test_other_errors_are_not_about_memory():
    assert not memory.is_out_of_memory(ValueError("shapes (3,) and (4,) do not match"))
