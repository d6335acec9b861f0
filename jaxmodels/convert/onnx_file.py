"""Tensors of ONNX files, and the graph that they lie in as data; nothing of it is executed.

An exporter keeps the name of a parameter unless it has changed the values, as it does when it computes the
weights of normalised layers. Such a weight is named here after the bias beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmodels.convert.numpy_file import ArrayTensor

LARGEST = 2**31 - 1  # bytes; protobuf has no larger messages
LAYERS = ("Conv", "ConvTranspose", "Gemm")  # inputs: x, weight, bias


class Node(NamedTuple):
    """An operation, and those of its attributes that are lists of integers."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, tuple[int, ...]]


class Graph(NamedTuple):
    """The tensors by name, the operations in order, and the names of the inputs."""

    tensors: dict[str, ArrayTensor]
    nodes: list[Node]
    inputs: list[str]


def open_onnx(path: str | os.PathLike[str]) -> Graph:
    """The graph of a file (by the library onnx); a ValueError where it is none, or unsound."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: got no file; expected an ONNX file. Check the path.")
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            f"{path}: got no onnx; expected it to read the file. Do pip install onnx"
        ) from error

    def broken(what: str) -> ValueError:
        return ValueError(f"{path}: got {what}; expected a sound ONNX file. Get the file again.")

    if (size := path.stat().st_size) > LARGEST:
        raise broken(f"{size:,} bytes, more than {LARGEST:,}")
    try:
        graph = onnx.load(path, load_external_data=False).graph
        found = {tensor.name: _array(tensor, path, broken) for tensor in graph.initializer}
        nodes = [_node(node) for node in graph.node]
    except ValueError:
        raise
    except Exception as error:  # protobuf raises its own, which has no public name
        raise broken(f"what the onnx library refuses ({str(error)[:200]})") from error
    if not nodes:
        raise broken("no operations")
    return Graph(found, [_named(node, found) for node in nodes], [value.name for value in graph.input])


def _named(node: Node, tensors: dict[str, ArrayTensor]) -> Node:
    """The operation, whose weight has the name that the bias suggests if its own is the exporter's."""
    if node.kind not in LAYERS or len(node.inputs) < 3 or not node.inputs[2].endswith(".bias"):
        return node
    x, weight, bias, *rest = node.inputs
    name = bias.removesuffix("bias") + "weight"
    if weight not in tensors or name in tensors:
        return node
    tensors[name] = tensors.pop(weight)._replace(name=name)
    return node._replace(inputs=(x, name, bias, *rest))


def _array(tensor: Any, path: Path, broken: Any) -> ArrayTensor:
    """The values of an initializer."""
    from onnx import numpy_helper

    if tensor.data_location or len(tensor.dims) > 8 or any(not 0 <= n < 2**31 for n in tensor.dims):
        raise broken(f"the tensor {tensor.name[:80]!r} in another file, or of the shape {list(tensor.dims)}")
    try:
        values = numpy_helper.to_array(tensor)
    except Exception as error:  # numpy's own for bytes that do not fit, onnx's for types
        raise broken(f"a tensor {tensor.name[:80]!r} that cannot be read ({str(error)[:80]})") from error
    return ArrayTensor(path, tensor.name, np.asarray(values))


def _node(node: Any) -> Node:
    attributes = {a.name: tuple(a.ints) for a in node.attribute if a.ints}
    return Node(node.op_type, tuple(node.input), tuple(node.output), attributes)
