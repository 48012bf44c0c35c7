"""BF16 tensors, which numpy does not have: the graph takes and gives FP32 instead, which holds each of their values.

    x: BF16 → …   becomes   x: FP32 → Cast → …          … → y: BF16   becomes   … → Cast → y: FP32

Their bits are the upper half of FP32's.
"""

from collections.abc import Iterator

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper

from services.worker.batch.graph import Array

SUFFIX = ".bf16"


def widen(model: bytes) -> tuple[bytes, frozenset[str]]:
    """The graph with FP32 in place of BF16 at its border, and which of its inputs and outputs these are."""
    proto = onnx.ModelProto.FromString(model)
    graph = proto.graph
    initial = {tensor.name for tensor in graph.initializer}
    inputs = [port for port in graph.input if _is_bfloat16(port) and port.name not in initial]
    outputs = [port for port in graph.output if _is_bfloat16(port)]
    names = frozenset(port.name for port in (*inputs, *outputs))
    _rename(graph, {name: name + SUFFIX for name in names})
    before = [_cast(port.name, port.name + SUFFIX, TensorProto.BFLOAT16) for port in inputs]
    after = [_cast(port.name + SUFFIX, port.name, TensorProto.FLOAT) for port in outputs]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    for port in (*inputs, *outputs):
        port.type.tensor_type.elem_type = TensorProto.FLOAT
    return proto.SerializeToString(), names


def is_at_border(session: ort.InferenceSession) -> bool:
    """Whether any input or output is of it."""
    return any(port.type == "tensor(bfloat16)" for port in (*session.get_inputs(), *session.get_outputs()))


def to_bits(array: Array) -> bytes:
    """FP32 whose lower halves are 0 as BF16, little-endian."""
    return (np.ascontiguousarray(array, "<f4").view("<u4") >> 16).astype("<u2").tobytes()


def from_bits(raw: bytes) -> Array:
    """BF16, little-endian, as FP32 [elements]. Raises ValueError where it is not a whole number of elements."""
    return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4")


def _is_bfloat16(port: onnx.ValueInfoProto) -> bool:
    return bool(port.type.tensor_type.elem_type == TensorProto.BFLOAT16)


def _cast(source: str, target: str, element_type: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{source} to {target}", to=element_type)


def _rename(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """In all nodes, those of inner graphs too, which see the outer names."""
    for node in _nodes(graph):
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)
