"""Names of the leaves of a pytree."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import pytest

from jaxmodels.paths import abbreviated, by_path, map_by_path, nested, path_name, replace

pytestmark = pytest.mark.fast


class Pair(NamedTuple):
    first: object
    second: object


def test_keys_fields_and_indices_are_joined_by_slashes():
    tree = Pair({"blocks": [{"kernel": 1, "bias": 2}]}, (4, None, {}))
    assert by_path(tree) == {
        "first/blocks/0/bias": 2,
        "first/blocks/0/kernel": 1,
        "second/0": 4,
    }


def test_names_come_in_the_order_of_the_leaves():
    tree = {"b": [3, 4], "a": 1, "c": Pair(5, 6)}
    assert list(by_path(tree).values()) == jax.tree.leaves(tree)


def test_a_bare_leaf_has_the_empty_name():
    assert by_path(5) == {"": 5} and path_name(()) == ""


def test_a_function_of_the_name_keeps_the_structure():
    tree = {"a": 1, "b": Pair(2, [3])}
    assert map_by_path(lambda name, x: f"{name}={x}", tree) == {
        "a": "a=1",
        "b": Pair("b/first=2", ["b/second/0=3"]),
    }


def test_leaves_are_replaced_by_name_and_others_are_the_same_objects():
    kept = jnp.ones(2)
    tree = {"a": Pair(kept, 2), "b": 3}
    got = replace(tree, {"a/second": 5, "absent": 6})
    assert got == {"a": Pair(kept, 5), "b": 3} and got["a"].first is kept
    assert replace(tree, {}) is tree


def test_nested_dicts_come_back_from_their_names():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert nested(by_path(tree)) == tree


def test_a_message_shows_six_names_in_order():
    assert abbreviated("hgfedcba") == "a, b, c, d, e, f"
