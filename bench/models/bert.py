"""BERT with a mean-pooled, normalised sentence embedding; by default of the size of all-MiniLM-L6-v2."""

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto

from tests.models.drawing import Drawing, port

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
OUTPUT = "sentence_embedding"
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


def build(shape: Bert) -> onnx.ModelProto:
    """Inputs int64 [batch, sequence]; output float [batch, hidden]."""
    graph = Drawing(seed=shape.seed)
    mask = graph.node("Cast", "attention_mask", to=TensorProto.FLOAT)
    wide = graph.node("Unsqueeze", mask, graph.integers(1, 2))
    bias = graph.node("Mul", graph.node("Sub", graph.scalar(1.0), wide), graph.scalar(MASKED))
    state = _embed(graph, shape)
    for _ in range(shape.layers):
        state = _layer(graph, shape, state, bias)
    _pool(graph, state, mask)
    inputs = [port(name, ["batch", "sequence"], TensorProto.INT64) for name in INPUTS]
    return graph.model(inputs, [port(OUTPUT, ["batch", shape.hidden])])


def _embed(graph: Drawing, shape: Bert) -> str:
    tables = [graph.random(rows, shape.hidden, scale=0.02) for rows in (shape.vocabulary, 2, shape.positions)]
    length = graph.node("Squeeze", graph.node("Shape", "input_ids", start=1, end=2))
    zero, one = (graph.constant(np.array(value, np.int64)) for value in (0, 1))
    places = graph.node("Range", zero, length, one)
    words, types, positions = (
        graph.node("Gather", table, ids)
        for table, ids in zip(tables, ("input_ids", "token_type_ids", places), strict=True)
    )
    return _norm(graph, shape, graph.node("Add", graph.node("Add", words, types), positions))


def _layer(graph: Drawing, shape: Bert, state: str, bias: str) -> str:
    size = shape.hidden // shape.heads
    split, joined = graph.integers(0, 0, shape.heads, size), graph.integers(0, 0, shape.hidden)
    query, key, value = (
        graph.node(
            "Transpose",
            graph.node("Reshape", graph.linear(state, shape.hidden, shape.hidden), split),
            perm=order,
        )
        for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
    )
    scores = graph.node("Div", graph.node("MatMul", query, key), graph.scalar(size**0.5))
    shares = graph.node("Softmax", graph.node("Add", scores, bias), axis=-1)
    mixed = graph.node("Transpose", graph.node("MatMul", shares, value), perm=[0, 2, 1, 3])
    attended = graph.linear(graph.node("Reshape", mixed, joined), shape.hidden, shape.hidden)
    state = _norm(graph, shape, graph.node("Add", attended, state))
    inner = graph.node("Gelu", graph.linear(state, shape.hidden, shape.intermediate))
    return _norm(graph, shape, graph.node("Add", graph.linear(inner, shape.intermediate, shape.hidden), state))


def _pool(graph: Drawing, state: str, mask: str) -> None:
    masked = graph.node("Mul", state, graph.node("Unsqueeze", mask, graph.integers(2)))
    total = graph.node("ReduceSum", masked, graph.integers(1), keepdims=0)
    tokens = graph.node("Max", graph.node("ReduceSum", mask, graph.integers(1), keepdims=1), graph.scalar(LEAST_TOKENS))
    graph.node("LpNormalization", graph.node("Div", total, tokens), output=OUTPUT, axis=-1, p=2)


def _norm(graph: Drawing, shape: Bert, state: str) -> str:
    ones, zeros = (graph.constant(np.full(shape.hidden, value, np.float32)) for value in (1, 0))
    return graph.node("LayerNormalization", state, ones, zeros, axis=-1, epsilon=1e-12)
