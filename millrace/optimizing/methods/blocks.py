"""Weights in 4 or 8 bits, 32 of them to a scale: MatMulNBits, which rounds activations by block as it runs.

A row's result is the same whatever rows are beside it. With 4 bits, products that an output comes from directly keep 8,
since their errors are nowhere evened out.
"""

from pathlib import Path

import onnx

from millrace.optimizing import graphs
from millrace.optimizing.methods.fold import fold
from millrace.optimizing.version import Version

BLOCK = 32
INT8_ARITHMETIC = 4
"""`accuracy_level`: activations are rounded to 8 bits."""
BEHIND_HEAD = frozenset({"Add", "Cast", "Div", "Gather", "Identity", "Mul", "Reshape", "Softmax", "Tanh", "Where"})


def int8(version: Version, out: Path) -> None:
    model = onnx.load(version.graph)
    graphs.store(_quantise(model, fold(model), bits=8), out)


def int4(version: Version, out: Path) -> None:
    model = onnx.load(version.graph)
    names = fold(model)
    heads = names & _heads(model.graph)
    model = _quantise(model, names - heads, bits=4)
    graphs.store(_quantise(model, heads, bits=8), out)


def _quantise(model: onnx.ModelProto, names: set[str], *, bits: int) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    if not names:
        return model
    quantiser = MatMulNBitsQuantizer(
        model,
        bits=bits,
        block_size=BLOCK,
        is_symmetric=True,
        accuracy_level=INT8_ARITHMETIC,
        nodes_to_exclude=[node.name for node in model.graph.node if node.name not in names],
        op_types_to_quantize=("MatMul",),
    )
    quantiser.process()
    made: onnx.ModelProto = quantiser.model.model
    return made


def _heads(graph: onnx.GraphProto) -> set[str]:
    """Nodes whose results the graph's outputs are made of by nothing but the operators of `BEHIND_HEAD`."""
    results, found = {port.name for port in graph.output}, set()
    for node in reversed(graph.node):
        if results.intersection(node.output):
            found.add(node.name)
            if node.op_type in BEHIND_HEAD:
                results.update(node.input)
    return found
