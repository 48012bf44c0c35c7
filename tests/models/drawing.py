"""An ONNX graph under construction. Weights are recipes until they are written, a block at a time."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper

from tests.models.noise import Noise, Strip

OPSET, IR_VERSION = 21, 10
CONTRIBUTED = frozenset({"GroupQueryAttention", "PagedAttention", "SkipSimplifiedLayerNormalization"})
"""Operators of the domain com.microsoft."""
INLINE_BYTES = 64
"""What is no longer stays in the graph's own file."""
PAGE_BYTES = 4096
Ports = list[onnx.ValueInfoProto]


@dataclass(frozen=True, slots=True, eq=False)
class Weight:
    """`blocks` gives its values from the beginning, in row-major order."""

    name: str
    dims: tuple[int, ...]
    element_type: int
    blocks: Callable[[], Iterable[npt.NDArray[Any]]]

    def proto(self) -> onnx.TensorProto:
        values = b"".join(block.tobytes() for block in self.blocks())
        return onnx.TensorProto(name=self.name, dims=self.dims, data_type=self.element_type, raw_data=values)

    def proto_in(self, file: BinaryIO, location: str) -> onnx.TensorProto:
        """Appends the values to a file, from the next page on, and answers what refers to them there."""
        offset = file.seek(-file.tell() % PAGE_BYTES, 1)
        for block in self.blocks():
            block.tofile(file)
        tensor = onnx.TensorProto(name=self.name, dims=self.dims, data_type=self.element_type)
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", offset), ("length", file.tell() - offset)):
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    @property
    def size_bytes(self) -> int:
        return int(np.prod(self.dims)) * helper.tensor_dtype_to_np_dtype(self.element_type).itemsize


class Drawing:
    """Nodes and weights. Random weights come from `seed` in the order in which they are asked for; those that are not
    whole numbers are stored as `element_type`."""

    def __init__(self, *, seed: int = 0, element_type: int = TensorProto.FLOAT) -> None:
        self.element_type = element_type
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[Weight] = []
        self.noise = Noise(seed)

    def node(
        self,
        operator: str,
        *inputs: str,
        name: str | None = None,
        output: str | None = None,
        more: tuple[str, ...] = (),
        **attributes: Any,
    ) -> str:
        """Adds a node, and answers the name of its output; `more` are the names of further ones."""
        name = name or f"{operator}_{len(self.nodes)}"
        output = output or f"{name}/output_0"
        domain = "com.microsoft" if operator in CONTRIBUTED else ""
        self.nodes.append(helper.make_node(operator, list(inputs), [output, *more], name, domain=domain, **attributes))
        return output

    def constant(self, values: npt.NDArray[Any], *, name: str | None = None, element_type: int | None = None) -> str:
        if element_type is None:
            whole = values.dtype.kind != "f"
            element_type = helper.np_dtype_to_tensor_dtype(values.dtype) if whole else self.element_type
        stored = values.astype(helper.tensor_dtype_to_np_dtype(element_type))
        return self._weight(name, values.shape, element_type, lambda: [stored])

    def integers(self, *values: int) -> str:
        """int64 [len(values)]."""
        return self.constant(np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        return self.constant(np.array(value))

    def random(self, *dims: int, scale: float, name: str | None = None, nan_row: int | None = None) -> str:
        """Normally distributed with this standard deviation. `nan_row`: not numbers there."""
        strip = self.noise.take(dims[0], int(np.prod(dims[1:])), scale)

        def blocks() -> Iterable[npt.NDArray[Any]]:
            drawn = self.noise.blocks(dims[0], [strip], self.element_type)
            return drawn if nan_row is None else _without_numbers(drawn, nan_row)

        return self._weight(name, dims, self.element_type, blocks)

    def strips(self, rows: int, strips: list[Strip], *, name: str) -> str:
        """A matrix of the noise's strips side by side."""
        dims = (rows, sum(strip.columns for strip in strips))
        return self._weight(name, dims, self.element_type, lambda: self.noise.blocks(rows, strips, self.element_type))

    def linear(self, source: str, inputs: int, outputs: int) -> str:
        weight = self.random(inputs, outputs, scale=inputs**-0.5)
        return self.node("Add", self.node("MatMul", source, weight), self.random(outputs, scale=0.02))

    def model(self, inputs: Ports, outputs: Ports) -> onnx.ModelProto:
        """With the weights inside."""
        return self._model(inputs, outputs, [weight.proto() for weight in self.weights])

    def save(self, path: Path, inputs: Ports, outputs: Ports) -> None:
        """Writes the graph, and beside it the weights in NAME.data, of which no more than a block is in memory."""
        location = f"{path.name}.data"
        with path.with_name(location).open("wb", buffering=0) as file:
            weights = [
                weight.proto_in(file, location) if weight.size_bytes >= INLINE_BYTES else weight.proto()
                for weight in self.weights
            ]
        path.write_bytes(self._model(inputs, outputs, weights).SerializeToString())

    def _weight(
        self,
        name: str | None,
        dims: tuple[int, ...],
        element_type: int,
        blocks: Callable[[], Iterable[npt.NDArray[Any]]],
    ) -> str:
        weight = Weight(name or f"weight_{len(self.weights)}", dims, element_type, blocks)
        self.weights.append(weight)
        return weight.name

    def _model(self, inputs: Ports, outputs: Ports, weights: list[onnx.TensorProto]) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "main_graph", inputs, outputs, weights)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def port(name: str, dims: list[int | str], element_type: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, element_type, dims)


def _without_numbers(blocks: Iterable[npt.NDArray[Any]], row: int) -> Iterable[npt.NDArray[Any]]:
    top = 0
    for block in blocks:
        if top <= row < top + len(block):
            block = block.copy()
            block[row - top] = np.nan
        yield block
        top += len(block)
