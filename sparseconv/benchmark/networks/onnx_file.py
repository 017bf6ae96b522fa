"""Graphs of ONNX, by the package onnx, which parses them and does no more here.

An ONNX file may refer to other files for its weights, which are not read, and its sizes may lie: a weight is taken if
its bytes are there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from sparseconv.benchmark.networks.packages import library, naming

__all__ = ["Graph", "Node", "read"]

MOST_BYTES, MOST_NODES, MOST_AXES = 1 << 30, 1 << 16, 8


@dataclass(frozen=True)
class Node:
    """An operator, with those attributes that are integers or lists of them."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operators in an order in which they can run, and the float32 arrays that the graph brings."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: list[Node]
    arrays: dict[str, np.ndarray]


def read(path: str | Path) -> Graph:
    """The graph of a file.

    Raises
    ------
    OSError
        If there is no such file.
    ValueError
        If it is no ONNX file, or an array lacks bytes or lies in another file.
    """
    onnx = library("onnx")
    if Path(path).stat().st_size > MOST_BYTES:
        raise ValueError(f"network: got more than {MOST_BYTES} bytes, in {path}")
    content = Path(path).read_bytes()
    try:
        model = onnx.ModelProto.FromString(content)
    except Exception as error:  # protobuf's DecodeError; others are not excluded
        raise ValueError(f"network: got a file that is no ONNX model: {str(error)[:200]}, in {path}") from error
    with naming(path):
        return _graph(onnx, model.graph)


def _graph(onnx: Any, graph: Any) -> Graph:
    if not graph.node or len(graph.node) > MOST_NODES:
        raise ValueError(f"got {len(graph.node)} operators, expected 1 to {MOST_NODES}")
    integer, integers = onnx.AttributeProto.INT, onnx.AttributeProto.INTS
    nodes = [
        Node(
            node.op_type,
            tuple(node.input),
            tuple(node.output),
            {one.name: one.i for one in node.attribute if one.type == integer}
            | {one.name: list(one.ints) for one in node.attribute if one.type == integers},
        )
        for node in graph.node
    ]
    arrays = {tensor.name: _array(onnx, tensor) for tensor in graph.initializer}
    if graph.sparse_initializer:
        raise ValueError("got sparse initialisers, expected dense ones")
    inputs = tuple(one.name for one in graph.input if one.name not in arrays)
    return Graph(inputs, tuple(one.name for one in graph.output), nodes, arrays)


def _array(onnx: Any, tensor: Any) -> np.ndarray:
    name, shape = tensor.name[:100], tuple(tensor.dims)
    if tensor.data_type != onnx.TensorProto.FLOAT:
        raise ValueError(f"got {name!r} of the type number {tensor.data_type}, expected float32")
    if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
        raise ValueError(f"got {name!r} in another file, expected all weights in this one")
    if len(shape) > MOST_AXES or any(size < 0 for size in shape):
        shown = shape[: MOST_AXES + 1]
        raise ValueError(f"got {name!r} of shape {shown}, expected at most {MOST_AXES} sizes from 0 on")
    if not tensor.raw_data or 4 * prod(shape) != len(tensor.raw_data):
        raise ValueError(f"got {name!r} of shape {shape} with {len(tensor.raw_data)} bytes, expected {4 * prod(shape)}")
    return np.frombuffer(tensor.raw_data, "<f4").reshape(shape)
