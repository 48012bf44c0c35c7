"""Products with fewer bits: rewrites a decoder graph at load and in memory, for the CPU.

INT8 gives each column of a matrix a scale, and each row of activations one of its own, found as it runs; the product
is then one of whole numbers, which are summed exactly. INT4 gives each block of 32 weights a scale, and leaves the
rounding of activations to the operator MatMulNBits; the head, whose errors count most, has eight bits there too. Under
either, a row's result is the same bits whatever rows are beside it.

    x ─ Abs ─ ReduceMax ─ Mul ─────────┬───────────── row scales ─┐
    x ──────────────────────── Div ────┘─ QuantizeLinear ─ uint8 ─┴─ MatMulIntegerToFloat ─ y

Activations are rounded once for all products that share them. Weights are read one tensor at a time, and what becomes
of them is answered beside the graph, so that no serialised graph has to hold them.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.checker import ValidationError

from services.worker.generation.slot import matrices
from services.worker.session import open_session

FEWEST_VALUES = 1 << 10
"""A smaller matrix is left as it is."""
OPSET = 18
BLOCK = 32
"""Weights to a scale under INT4: with it, the kernel gives a row the same bits for any number of rows."""
INT8_ARITHMETIC = 4
"""MatMulNBits' `accuracy_level`: activations are rounded to 8 bits too."""
BEHIND_HEAD = frozenset({"Add", "Cast", "Div", "Gather", "Identity", "Mul", "Reshape", "Tanh", "Where"})
WEIGHT_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16})
ZERO, ONE, STEP, LAST = (f"millrace/quantise/{name}" for name in ("zero", "one", "step", "last"))

Arrays = dict[str, npt.NDArray[Any]]
Quantiser = Callable[[npt.NDArray[np.float32]], tuple[npt.NDArray[Any], npt.NDArray[np.float32]]]


class Scheme(StrEnum):
    """How a matrix is stored and multiplied."""

    INT8 = "int8"
    INT4 = "int4"


def quantise(model: onnx.ModelProto, folder: Path, scheme: Scheme) -> Arrays:
    """Changes `model`, whose external data lies in `folder`, and returns the new weights: the session is to get them by
    name with `SessionOptions.add_external_initializers`.

    What is no product of 32-bit activations and a constant matrix, and what is small, stays as it is. Raises ValueError
    where there is nothing to quantise, or a weight is not finite.
    """
    if _opset(model) < OPSET:
        raise ValueError(f"the graph is of opset {_opset(model)}: {scheme} weights need {OPSET} or later")
    rewriting = _Rewriting(model.graph, folder, scheme)
    for node in model.graph.node:
        rewriting.take(node)
    if not rewriting.arrays:
        raise ValueError(f"the graph has no matrix that can be stored as {scheme}")
    rewriting.finish()
    return rewriting.arrays


@functools.cache
def multiplies_exactly() -> bool:
    """Whether this CPU's product of uint8 and int8 is exact. Without VNNI, two products are summed in 16 bits, which
    they can exceed; weights are then stored as uint8, whose product is slower, and the same bits come out.
    """
    node = helper.make_node("MatMulInteger", ["x", "weight"], ["y"])
    ports = [helper.make_tensor_value_info("x", TensorProto.UINT8, [2, 64])]
    ports += [helper.make_tensor_value_info("y", TensorProto.INT32, [2, 64])]
    weight = numpy_helper.from_array(np.full((64, 64), 127, np.int8), "weight")
    graph = helper.make_graph([node], "probe", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    session = open_session(model.SerializeToString(), device="cpu", threads=1)
    return bool((session.run(None, {"x": np.full((2, 64), 255, np.uint8)})[0] == 64 * 255 * 127).all())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Matrix:
    """A constant [inputs, outputs] that is computed in `element_type` from the tensor where it is stored."""

    stored: onnx.TensorProto
    element_type: int
    turned: bool = False

    @property
    def key(self) -> str:
        return f"{self.stored.name}/turned" if self.turned else self.stored.name

    @property
    def shape(self) -> tuple[int, int]:
        first, second = self.stored.dims
        return (second, first) if self.turned else (first, second)

    @property
    def fits(self) -> bool:
        return self.element_type == TensorProto.FLOAT and math.prod(self.shape) >= FEWEST_VALUES

    def behind(self, node: onnx.NodeProto) -> Self | None:
        """What `node` makes of it, if that is a matrix still to be read from the same tensor."""
        attributes = _attributes(node)
        if node.op_type == "Cast" and attributes.get("to") == TensorProto.FLOAT:
            return replace(self, element_type=TensorProto.FLOAT)
        if node.op_type == "Transpose" and attributes.get("perm", [1, 0]) == [1, 0]:
            return replace(self, turned=not self.turned)
        return None

    def read(self, folder: Path) -> npt.NDArray[np.float32]:
        tensor = self.stored
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor = TensorProto()
            tensor.CopyFrom(self.stored)
        values = numpy_helper.to_array(tensor, str(folder)).astype(np.float32, copy=False)
        return values.T if self.turned else values


class _Rewriting:
    """The nodes of a graph, one after the other, and what becomes of them."""

    def __init__(self, graph: onnx.GraphProto, folder: Path, scheme: Scheme) -> None:
        self.arrays: Arrays = {}
        self._graph = graph
        self._folder = folder
        self._scheme = scheme
        self._nodes: list[onnx.NodeProto] = []
        self._constants = {
            tensor.name: _Matrix(stored=tensor, element_type=tensor.data_type)
            for tensor in graph.initializer
            if len(tensor.dims) == 2 and tensor.data_type in WEIGHT_TYPES
        }
        self._rounded: dict[str, tuple[str, str]] = {}
        self._heads = _heads(graph)

    def take(self, node: onnx.NodeProto) -> None:
        matrix = self._matrix(node)
        if matrix is None:
            self._follow(node)
            self._nodes.append(node)
            return
        bias = node.input[2] if len(node.input) > 2 else ""
        product = f"{node.output[0]}/product" if bias else node.output[0]
        if self._scheme is Scheme.INT8 or node.output[0] in self._heads:
            self._multiply_whole(node.input[0], matrix, product)
        else:
            self._multiply_blocks(node.input[0], matrix, product)
        if bias:
            self._add("Add", [product, bias], node.output[0])

    def finish(self) -> None:
        """Puts the new nodes and tensors in place of the old."""
        graph = self._graph
        needed = {port.name for port in graph.output}
        kept = []
        for node in reversed(self._nodes):
            if needed.intersection(node.output):
                needed.update(node.input)
                kept.append(node)
        constants: Arrays = {
            ZERO: np.array(128, np.uint8),
            ONE: np.array(1, np.float32),
            STEP: np.array(1 / 127, np.float32),
            LAST: np.array([-1], np.int64),
        }
        tensors = [*graph.initializer, *(numpy_helper.from_array(array, name) for name, array in constants.items())]
        tensors += [_placeholder(name, array) for name, array in self.arrays.items()]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(reversed(kept))
        graph.initializer.extend(tensor for tensor in tensors if tensor.name in needed)

    def _matrix(self, node: onnx.NodeProto) -> _Matrix | None:
        """The constant that a node multiplies its first input by, if that is all that it does."""
        if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm") or len(node.input) < 2:
            return None
        attributes, matrix = _attributes(node), self._constants.get(node.input[1])
        if matrix is not None and attributes.pop("transB", 0):
            matrix = replace(matrix, turned=not matrix.turned)
        plain = all(value == (0 if name == "transA" else 1) for name, value in attributes.items())
        return matrix if matrix is not None and matrix.fits and plain else None

    def _follow(self, node: onnx.NodeProto) -> None:
        matrix = self._constants.get(node.input[0]) if node.input else None
        if matrix is not None and (made := matrix.behind(node)) is not None:
            self._constants[node.output[0]] = made

    def _multiply_whole(self, source: str, matrix: _Matrix, target: str) -> None:
        rounded, row_scales = self._round(source)
        whole, scales = f"{matrix.key}/int8", f"{matrix.key}/scales"
        if whole not in self.arrays:
            numbers, self.arrays[scales] = self._read(matrix, matrices.per_column)
            self.arrays[whole] = numbers if multiplies_exactly() else numbers.view(np.uint8) ^ 128
        zero = [ZERO] if self.arrays[whole].dtype == np.uint8 else []
        inputs = [rounded, whole, row_scales, scales, ZERO, *zero]
        self._add("MatMulIntegerToFloat", inputs, target, domain="com.microsoft")

    def _round(self, source: str) -> tuple[str, str]:
        """Names of `source` as uint8, of which 128 is zero, and of its scales, one for each row."""
        if source not in self._rounded:
            size = self._add("Abs", [source], f"{source}/size")
            peak = self._add("ReduceMax", [size, LAST], f"{source}/peak", keepdims=1)
            scales = self._add("Mul", [peak, STEP], f"{source}/scales")
            scaled = self._add("Div", [source, scales], f"{source}/scaled")
            whole = self._add("QuantizeLinear", [scaled, ONE, ZERO], f"{source}/uint8")
            self._rounded[source] = whole, scales
        return self._rounded[source]

    def _multiply_blocks(self, source: str, matrix: _Matrix, target: str) -> None:
        whole, scales = f"{matrix.key}/int4", f"{matrix.key}/block_scales"
        if whole not in self.arrays:
            per_block = functools.partial(matrices.per_block, bits=4, block=BLOCK)
            self.arrays[whole], self.arrays[scales] = self._read(matrix, per_block)
        inputs, outputs = matrix.shape
        attributes = {"K": inputs, "N": outputs, "bits": 4, "block_size": BLOCK, "accuracy_level": INT8_ARITHMETIC}
        self._add("MatMulNBits", [source, whole, scales], target, domain="com.microsoft", **attributes)

    def _read(self, matrix: _Matrix, quantiser: Quantiser) -> tuple[npt.NDArray[Any], npt.NDArray[np.float32]]:
        try:
            return quantiser(matrix.read(self._folder))
        except (ValueError, ValidationError) as error:
            raise ValueError(f"the weight {matrix.stored.name}: {error}") from None

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self._nodes.append(helper.make_node(operator, inputs, [output], f"/{output}", **attributes))
        return output


def _heads(graph: onnx.GraphProto) -> set[str]:
    """Results that the graph's outputs are made of by nothing but the operators of `BEHIND_HEAD`."""
    found = {port.name for port in graph.output}
    for node in reversed(graph.node):
        if node.op_type in BEHIND_HEAD and found.intersection(node.output):
            found.update(node.input)
    return found


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _opset(model: onnx.ModelProto) -> int:
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)


def _placeholder(name: str, array: npt.NDArray[Any]) -> onnx.TensorProto:
    """An initialiser whose values the session gets beside the graph."""
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value="in memory")
    return tensor
