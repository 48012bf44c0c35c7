"""Matrices as quantisers want them: constants of 32-bit floats, multiplied by MatMul.

    fp16 constant ─ Cast ─ [Transpose] ─ MatMul      becomes      fp32 constant ─ MatMul

What else reads the stored constant, such as a table of embeddings, keeps it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from millrace.optimizing.graphs import ONNX_DOMAINS, Unsuitable, weights

FEWEST_VALUES = 1 << 10
LEAST_SHARE = 0.1
"""Of the weights: what quantising fewer than these gains is nothing."""
Nodes = Mapping[str, onnx.NodeProto]


def fold(model: onnx.ModelProto) -> set[str]:
    """Changes the model, and answers the names of the products by a constant matrix of at least `FEWEST_VALUES`
    numbers. Raises Unsuitable where they hold too few of the weights."""
    from onnxruntime.quantization.onnx_model import ONNXModel

    total = max(weights(model), 1)
    ONNXModel(model).replace_gemm_with_matmul()
    del model.graph.value_info[:]  # which has the shapes of matrices that were turned
    made_by = {name: node for node in model.graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    found, values = set(), 0
    for index, node in enumerate(model.graph.node):
        if not _multiplies(node):
            continue
        node.name = node.name or f"product_{index}"
        matrix = _matrix(node.input[1], made_by, constants)
        if matrix is None or matrix.size < FEWEST_VALUES:
            continue
        if node.input[1] not in constants:
            name = f"{node.input[1]}.folded"
            if name not in constants:
                constants[name] = numpy_helper.from_array(np.ascontiguousarray(matrix), name)
                model.graph.initializer.append(constants[name])
            node.input[1] = name
        found.add(node.name)
        values += matrix.size
    if values < LEAST_SHARE * total:
        raise Unsuitable(f"matrix products hold {min(values / total, 1):.1%} of its weights")
    return found


def _multiplies(node: onnx.NodeProto) -> bool:
    return node.op_type == "MatMul" and node.domain in ONNX_DOMAINS


def _matrix(name: str, made_by: Nodes, constants: Mapping[str, onnx.TensorProto]) -> npt.NDArray[Any] | None:
    """A constant of two dimensions in 32-bit floats, wherever it is stored; None for what is no such constant."""
    if name in constants:
        tensor = constants[name]
        is_float = tensor.data_type in (TensorProto.FLOAT, TensorProto.FLOAT16)
        return numpy_helper.to_array(tensor) if is_float and len(tensor.dims) == 2 else None
    node = made_by.get(name)
    attributes = {} if node is None else {one.name: helper.get_attribute_value(one) for one in node.attribute}
    if node is None or node.domain not in ONNX_DOMAINS:
        return None
    if node.op_type == "Cast" and attributes.get("to") == TensorProto.FLOAT:
        stored = _matrix(node.input[0], made_by, constants)
        return None if stored is None else stored.astype(np.float32)
    if node.op_type == "Transpose" and attributes.get("perm", [1, 0]) == [1, 0]:
        stored = _matrix(node.input[0], made_by, constants)
        return None if stored is None else stored.T
    return None
