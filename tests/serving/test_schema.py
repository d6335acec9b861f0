"""Structured output: what comes is valid JSON of its schema, from a model that has learned nothing."""

from __future__ import annotations

import json
from functools import lru_cache

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
import pytest
from serving.language import joined

from jaxmodels.decoding import generate
from jaxmodels.decoding.sample import SamplingOptions
from jaxmodels.models.gpt import GPT
from jaxmodels.serving.engine import Engine
from jaxmodels.serving.request import Request
from jaxmodels.tasks.language import decoder

BYTES = 256  # the tokens are bytes, then pairs of letters, then the end


@lru_cache
def byte_model(end: bool = True):
    module = GPT(vocabulary=BYTES + 3 + end, length=256, width=16, depth=1, heads=2)
    params = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, 4), jnp.int32))["params"]
    pairs = {BYTES: b'{"', BYTES + 1: b'",', BYTES + 2: b"ab"}

    def decode(tokens) -> str:
        return b"".join(pairs.get(t, bytes([t % 256])) for t in tokens).decode(errors="replace")

    end_token = BYTES + 3 if end else None
    return decoder(module, encode=lambda text: list(text.encode()), decode=decode, end=end_token), params


@pytest.fixture(scope="module")
def engine():
    made = Engine(*byte_model(), {}, slots=4, chunk=16, capacity=256)
    made.start()
    yield made
    made.close(drain=False, timeout=10)
    assert made.metrics()["compilations_total"] == 0


def random_schema(random, depth: int = 0) -> dict:
    kinds = ["string", "integer", "boolean", "enum", "null"] + ["object", "array"] * (2 if depth < 2 else 0)
    kind = random.choice(kinds)
    if kind == "enum":
        return {"enum": ["red", "green", 3, None]}
    if kind == "string":
        return {"type": "string", "maxLength": int(random.integers(1, 6))}
    if kind == "integer":
        return {"type": "integer", "minimum": -5, "maximum": int(random.integers(0, 1000))}
    if kind == "array":
        return {"type": "array", "items": random_schema(random, depth + 1), "minItems": 1, "maxItems": 2}
    if kind == "object":
        names = [f"k{n}" for n in range(random.integers(1, 4))]
        properties = {name: random_schema(random, depth + 1) for name in names}
        return {
            "type": "object",
            "properties": properties,
            "required": names,
            "additionalProperties": False,
        }
    return {"type": str(kind)}


def test_what_comes_is_valid_and_other_texts_do_not_change(engine):
    random = np.random.default_rng(3)
    schemas = [random_schema(random) for _ in range(12)]
    free = Request((1, 2, 3), SamplingOptions(tokens=60, temperature=1.0, seed=5))
    beside = engine.submit(free)
    asked = [
        Request((65, 66), SamplingOptions(tokens=200, temperature=t, seed=n), schema=json.dumps(schema))
        for n, (schema, t) in enumerate(zip(schemas, [1.0, 0.0, 3.0] * 4, strict=True))
    ]
    streams = [engine.submit(x) for x in asked]
    complete = 0
    for schema, stream in zip(schemas, streams, strict=True):
        pieces = list(stream)
        if pieces[-1].finish == "stop":
            jsonschema.validate(json.loads(joined(pieces)[0]), schema)
            complete += 1
    assert complete >= 10
    decoder, params = byte_model()
    alone = generate(decoder, params, {}, ["\1\2\3"], **free.options._asdict())[0].tokens
    assert joined(list(beside))[1] == alone


@pytest.mark.thorough
def test_a_model_without_an_end_token_stops_when_its_json_is_complete():
    made = Engine(*byte_model(end=False), {}, slots=1, chunk=16, capacity=64)
    made.start()
    schema = '{"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}'
    options = SamplingOptions(tokens=60, temperature=1.0)
    request = Request((65,), options, schema=schema.replace("}}", '}}, "additionalProperties": false', 1))
    pieces = list(made.submit(request))
    made.close(drain=True, timeout=10)
    assert pieces[-1].finish == "stop"
    assert json.loads(joined(pieces)[0]).keys() == {"a"}


@pytest.mark.parametrize(
    "schema",
    ["{", '{"type": "nonsense"}', "[]" * 40_000, '{"$ref": "http://example.com/a"}'],
    ids=["not JSON", "no type", "long", "elsewhere"],
)
def test_a_schema_that_cannot_be_followed_is_refused(engine, schema):
    with pytest.raises(ValueError, match=r"^schema: got"):
        engine.submit(Request((65,), schema=schema))


def test_a_schema_that_turns_out_to_be_too_much_ends_its_own_text_alone(engine, monkeypatch):
    from jaxmodels.serving.schema import Matcher

    beside = engine.submit(Request((1, 2, 3), SamplingOptions(tokens=20, temperature=0.0)))
    monkeypatch.setattr(Matcher, "add", lambda self, token: "failed")
    pieces = list(engine.submit(Request((65,), SamplingOptions(tokens=9), schema='{"type": "boolean"}')))
    assert pieces[-1].finish == "error" and joined(pieces)[1] == []
    assert list(beside)[-1].finish in ("length", "stop")
