"""Adapters in one engine: each request's text is the merged model's, whatever runs beside it."""

from __future__ import annotations

import numpy as np
import pytest
from serving.language import model, request

from jaxmodels.commands.serve import serve
from jaxmodels.decoding import generate
from jaxmodels.decoding.adapters import with_adapters
from jaxmodels.serving.engine import Engine
from jaxmodels.tasks.lora import merge

NAMES = ("one", "two", "three")


def test_requests_with_three_adapters_and_none_get_the_merged_models_texts():
    decoder, params = model("gpt", None)
    adapters = {}
    for n, name in enumerate(NAMES):
        rng = np.random.default_rng(n)
        pair = {"a": rng.normal(size=(2, 16, 1 + n)), "b": rng.normal(size=(2, 1 + n, 48))}
        adapters[name] = {"blocks/qkv/kernel": {key: x.astype(np.float32) for key, x in pair.items()}}
    wrapped, together, names = with_adapters(decoder, params, adapters)
    engine = Engine(wrapped, together, {}, slots=2, chunk=8, burst=3, adapters=names)
    engine.start()
    choices = [*NAMES, None, "two", "one"]
    how = {"tokens": 8, "temperature": 0.0}
    streams = [engine.submit(request("abcabcabcabc", adapter=name, **how)) for name in choices]
    texts = [[token for piece in stream for token in piece.tokens] for stream in streams]
    assert engine.metrics()["compilations_total"] == 0
    engine.close(drain=False, timeout=10)
    merged = {name: merge(params, adapters[name], 1.0) for name in NAMES} | {None: params}
    want = {
        name: generate(decoder, one, {}, ["abcabcabcabc"], **how)[0].tokens for name, one in merged.items()
    }
    assert texts == [want[name] for name in choices]
    assert len({tuple(tokens) for tokens in want.values()}) > 2


@pytest.mark.parametrize("words", [["one"], ["=x"], ["one="], ["one=x", "one=y"], ["base=x"]])
def test_an_adapter_without_a_name_of_its_own_is_refused(words, tmp_path):
    (tmp_path / "base").mkdir()
    with pytest.raises(ValueError, match="--adapter: got"):
        serve(tmp_path / "base", adapter=words, port=0)
