"""BERT with a mean-pooled, normalised sentence embedding; by default of the size of all-MiniLM-L6-v2."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from tests.models.drawing import Drawing, port

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT, STATES = "sentence_embedding", "last_hidden_state"
MASKED = -10_000.0
LEAST_TOKENS = 1e-9
"""What a mask without a token counts as, as sentence-transformers has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bert:
    """Its shape."""

    layers: int = 6
    hidden: int = 384
    heads: int = 12
    intermediate: int = 1536
    vocabulary: int = 30_522
    positions: int = 512
    seed: int = 0


class BertDrawing(Drawing):
    """A graph under construction, of weights that are given, or random ones where none are."""

    def __init__(self, seed: int, given: Mapping[str, npt.NDArray[Any]]) -> None:
        super().__init__(seed=seed)
        self._given = given

    def table(self, name: str, rows: int, columns: int) -> str:
        if (given := self._given.get(f"embeddings.{name}_embeddings.weight")) is not None:
            return self.constant(given)
        return self.random(rows, columns, scale=0.02)

    def named_linear(self, name: str, source: str, inputs: int, outputs: int) -> str:
        """PyTorch has its matrices [outputs, inputs]."""
        if (weight := self._given.get(f"{name}.weight")) is None:
            return self.linear(source, inputs, outputs)
        product = self.node("MatMul", source, self.constant(np.ascontiguousarray(weight.T)))
        return self.node("Add", product, self.constant(self._given[f"{name}.bias"]))

    def norm(self, name: str, state: str, size: int) -> str:
        gain, shift = (
            self.constant(self._given.get(f"{name}.LayerNorm.{part}", np.full(size, value, np.float32)))
            for part, value in (("weight", 1), ("bias", 0))
        )
        return self.node("LayerNormalization", state, gain, shift, axis=-1, epsilon=1e-12)


def build(shape: Bert, given: Mapping[str, npt.NDArray[Any]] | None = None, *, pooled: bool = True) -> onnx.ModelProto:
    """Inputs int64 [batch, sequence]; output float [batch, hidden], or without `pooled` the last layer's states
    [batch, sequence, hidden]. `given`: weights as transformers' BertModel names them."""
    graph = BertDrawing(shape.seed, given or {})
    mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    wide = graph.node("Unsqueeze", mask, graph.integers(1, 2))
    bias = graph.node("Mul", graph.node("Sub", graph.scalar(1.0), wide), graph.scalar(MASKED))
    state = _embed(graph, shape)
    for layer in range(shape.layers):
        state = _layer(graph, shape, f"encoder.layer.{layer}", state, bias)
    inputs = [port(name, ["batch", "sequence"], TensorProto.INT64) for name in INPUTS]
    if not pooled:
        graph.node("Identity", state, output=STATES)
        return graph.model(inputs, [port(STATES, ["batch", "sequence", shape.hidden])])
    _pool(graph, state, mask)
    return graph.model(inputs, [port(OUTPUT, ["batch", shape.hidden])])


def _embed(graph: BertDrawing, shape: Bert) -> str:
    sizes = {"word": shape.vocabulary, "token_type": 2, "position": shape.positions}
    tables = [graph.table(name, rows, shape.hidden) for name, rows in sizes.items()]
    length = graph.node("Squeeze", graph.node("Shape", "input_ids", start=1, end=2))
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    places = graph.node("Range", zero, length, one)
    words, types, positions = (
        graph.node("Gather", table, ids)
        for table, ids in zip(tables, ("input_ids", "token_type_ids", places), strict=True)
    )
    return graph.norm("embeddings", graph.node("Add", graph.node("Add", words, types), positions), shape.hidden)


def _layer(graph: BertDrawing, shape: Bert, name: str, state: str, bias: str) -> str:
    size = shape.hidden // shape.heads
    split, joined = graph.integers(0, 0, shape.heads, size), graph.integers(0, 0, shape.hidden)
    query, key, value = (
        graph.node(
            "Transpose",
            graph.node(
                "Reshape", graph.named_linear(f"{name}.attention.self.{part}", state, shape.hidden, shape.hidden), split
            ),
            perm=order,
        )
        for part, order in (("query", [0, 2, 1, 3]), ("key", [0, 2, 3, 1]), ("value", [0, 2, 1, 3]))
    )
    scores = graph.node("Div", graph.node("MatMul", query, key), graph.scalar(size**0.5))
    shares = graph.node("Softmax", graph.node("Add", scores, bias), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", shares, value), perm=[0, 2, 1, 3])
    gathered = graph.node("Reshape", mixed, joined)
    attended = graph.named_linear(f"{name}.attention.output.dense", gathered, shape.hidden, shape.hidden)
    state = graph.norm(f"{name}.attention.output", graph.node("Add", attended, state), shape.hidden)
    inner = graph.node(
        "Gelu", graph.named_linear(f"{name}.intermediate.dense", state, shape.hidden, shape.intermediate)
    )
    outer = graph.named_linear(f"{name}.output.dense", inner, shape.intermediate, shape.hidden)
    return graph.norm(f"{name}.output", graph.node("Add", outer, state), shape.hidden)


def _pool(graph: Drawing, state: str, mask: str) -> None:
    masked = graph.node("Mul", state, graph.node("Unsqueeze", mask, graph.integers(2)))
    total = graph.node("ReduceSum", masked, graph.integers(1), keepdims=0)
    tokens = graph.node("Max", graph.node("ReduceSum", mask, graph.integers(1), keepdims=1), graph.scalar(LEAST_TOKENS))
    graph.node("LpNormalization", graph.node("Div", total, tokens), output=OUTPUT, axis=-1, p=2)
