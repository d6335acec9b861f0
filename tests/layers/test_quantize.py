from __future__ import annotations

import re
import sys
from functools import cache

import jax
import pytest
from instances import first
from parallel.cases import BY_NAME, GPT_, Case, alone, losses

from jaxmodels.layers.quantize import quantized
from jaxmodels.tasks.language import next_token

CASE = BY_NAME["gpt"]


@cache
def case(products: str) -> Case:
    pytest.importorskip("qwix", reason="products in 8 bits need qwix, the extra quant")
    return Case(products, next_token(quantized(GPT_, products)), CASE.batch, CASE.rules)


@pytest.mark.parametrize(("products", "short"), [("int8", "i8"), ("float8", "f8E4M3FN")])
def test_the_products_of_blocks_are_in_eight_bits_and_the_head_is_not(products, short):
    task = case(products).task
    params, extra = jax.eval_shape(task.init, jax.random.key(0), CASE.batch)
    text = jax.jit(task.evaluate).lower(params, extra, CASE.batch).as_text()
    operands = [
        re.findall(r"x([a-z][A-Za-z0-9]*)>", types)
        for types in re.findall(r"dot_general.*?: \((.*?)\) ->", text)
    ]
    assert operands.count([short, short]) == 6  # queries, keys and values; scores; their sums; out; up; down
    assert operands.count(["f32", "f32"]) == 1


@pytest.mark.parametrize("products", first(1, ["int8", "float8"]))
def test_it_learns_almost_the_same(products):
    got = losses(case(products), "data=1")
    assert got == pytest.approx(alone(CASE), abs=0.02) and got != alone(CASE)


@pytest.mark.thorough
def test_on_a_mesh_it_learns_the_same_to_the_steps_of_rounding():
    assert losses(case("int8"), "data=2,tensor=2") == pytest.approx(losses(case("int8"), "data=1"), abs=2e-3)


@pytest.mark.fast
def test_float_products_are_the_model_itself():
    assert quantized(GPT_, "float") is GPT_


@pytest.mark.fast
def test_another_type_is_refused():
    with pytest.raises(
        ValueError,
        match=r"got products='int4'; expected one of 'float', 'int8', 'float8'\. Do give products='int8'",
    ):
        quantized(GPT_, "int4")


@pytest.mark.fast
def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(ImportError, match=r"products in 8 bits need qwix; pip install 'jaxmodels\[quant\]'"):
        quantized(GPT_, "int8")
