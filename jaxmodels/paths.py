"""Names of the leaves of a pytree, such as blocks/qkv/kernel.

Rules, checkpoints, converted weights and messages name parameters so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax


def path_name(path: Sequence[Any]) -> str:
    """The name of a key path of `jax.tree_util`: keys, fields and indices, joined by a slash."""
    return jax.tree_util.keystr(tuple(path), simple=True, separator="/")


def by_path(tree: Any) -> dict[str, Any]:
    """The leaves by name, in the tree's order."""
    return {path_name(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}


def map_by_path(function: Callable[[str, Any], Any], tree: Any) -> Any:
    """The tree with function(name, leaf) in place of each leaf."""
    return jax.tree.map_with_path(lambda path, leaf: function(path_name(path), leaf), tree)


def replace(tree: Any, leaves: Mapping[str, Any]) -> Any:
    """The tree with these leaves in place of its own of the same names."""
    return map_by_path(lambda name, leaf: leaves.get(name, leaf), tree) if leaves else tree


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict that has these leaves: the inverse of `by_path` for dicts whose keys have no slash."""
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = leaf
    return tree


def abbreviated(names: Iterable[str]) -> str:
    """The first six names in order, for a message."""
    return ", ".join(sorted(names)[:6])
