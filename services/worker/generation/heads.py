"""Where a decoder graph turns its states into logits."""

import onnx

HEADS = frozenset({"MatMul", "MatMulNBits"})
ELEMENTWISE = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Tanh", "Where"})


def find_head(graph: onnx.GraphProto, logits: str) -> onnx.NodeProto | None:
    """The product that makes the logits, with whatever works on each of them by itself behind it; None where there is
    none that is known to be one."""
    producers = {name: node for node in graph.node for name in node.output}
    node = producers.get(logits)
    while node is not None and node.op_type in ELEMENTWISE:
        node = next((producers[name] for name in node.input if name in producers), None)
    return node if node is not None and node.op_type in HEADS else None
