"""Sampling as an ONNX graph, so that only token ids leave the device.

Temperature first; then min_p and top_k drop tokens below a floor of probability (ties with the floor stay); of what is
left, top_p keeps the best until their mass reaches it. Finding that nucleus by sorting would cost more than a small
model, so it is not looked for: a token is drawn from all that is left, by inverting the cumulative distribution in the
order of the vocabulary, and accepted if the mass of better tokens is below top_p. Otherwise neither it nor any worse
token is in the nucleus, and the next attempt draws from the better ones (the rejection sampling of FlashInfer, Ye and
others 2025, arXiv:2501.01005). The result is distributed exactly; a row depends on nothing but itself.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INVALID, PENDING = -1, -2
ATTEMPTS = 32
"""After so many rejections the best token is taken. An attempt is accepted with a probability of at least top_p, and a
rejection drops half of what is left on average, so that a second is rare and a tenth is not seen."""
OPSET, IR_VERSION = 21, 10


class GraphText:
    """Collects nodes; each operation returns the name of its first result."""

    def __init__(self, prefix: str) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._prefix = prefix

    def __call__(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> str:
        names = [f"{self._prefix}_{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0]

    def constant(self, value: float | int | Sequence[int], dtype: type[np.generic] = np.int64) -> str:
        name = f"{self._prefix}_constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def column(self, rows: str) -> str:
        """[rows] → [rows, 1]."""
        return self("Unsqueeze", rows, self.constant([1]))

    def total(self, matrix: str, keepdims: int = 1) -> str:
        """The sum of each row."""
        return self("ReduceSum", matrix, self.constant([1]), keepdims=keepdims)

    def graph(self, name: str, inputs: Sequence[Sequence[Any]], outputs: Sequence[Sequence[Any]]) -> onnx.GraphProto:
        """Ports are (name, element type, shape)."""
        sources, targets = ([helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs))
        return helper.make_graph(self.nodes, name, sources, targets, self.initializers)


def build(*, logits_type: int, vocabulary_size: int, greedy: bool, top_k: bool, banned: bool) -> bytes:
    """A model with input logits [rows, 1, vocabulary] and output token int64 [rows], `INVALID` where a row's logits
    are not all finite.

    Unless greedy: inputs temperature, top_p, min_p float [rows]; uniform float [rows, ATTEMPTS]. With top_k: inputs
    top_k int64 [rows], candidates int64 [1], the largest of them. With banned: inputs ban_index int64 [n, 2] of (row,
    token id) and ban_bias float [n], added to those logits.
    """
    op = GraphText("main")
    inputs: list[Sequence[Any]] = [("logits", logits_type, ["rows", 1, vocabulary_size])]
    scores = op("Cast", op("Squeeze", "logits", op.constant([1])), to=TensorProto.FLOAT)
    zero = op.constant(0, np.float32)
    finite = op("Equal", op("Mul", op.total(scores, keepdims=0), zero), zero)
    if banned:
        inputs += [("ban_index", TensorProto.INT64, ["bans", 2]), ("ban_bias", TensorProto.FLOAT, ["bans"])]
        scores = op("ScatterND", scores, "ban_index", "ban_bias", reduction="add")
    token = op("ArgMax", scores, axis=1, keepdims=0)
    if top_k:
        inputs += [("top_k", TensorProto.INT64, ["rows"]), ("candidates", TensorProto.INT64, [1])]
    if not greedy:
        inputs += [(name, TensorProto.FLOAT, ["rows"]) for name in ("temperature", "top_p", "min_p")]
        inputs += [("uniform", TensorProto.FLOAT, ["rows", ATTEMPTS])]
        settled = op("Or", op("Equal", "temperature", zero), op("Not", finite))
        token = _draw(op, _kept(op, scores, zero, top_k=top_k), vocabulary_size, best=token, settled=settled)
    op.nodes.append(helper.make_node("Where", [finite, token, op.constant(INVALID)], ["token"]))
    graph = op.graph("sampling", inputs, [("token", TensorProto.INT64, ["rows"])])
    opset = helper.make_opsetid("", OPSET)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString())


def _kept(op: GraphText, scores: str, zero: str, *, top_k: bool) -> str:
    """The probabilities after the temperature, 0 below the floor; [rows, vocabulary]."""
    temperature = op("Where", op("Equal", "temperature", zero), op.constant(1, np.float32), "temperature")
    shifted = op("Sub", scores, op("ReduceMax", scores, op.constant([1]), keepdims=1))
    probabilities = op("Softmax", op("Div", shifted, op.column(temperature)), axis=1)
    peak = op("ReduceMax", probabilities, op.constant([1]), keepdims=1)
    floor = op("Mul", op.column("min_p"), peak)
    if top_k:
        best = op("TopK", probabilities, "candidates", axis=1, outputs=2)
        rank = op("Max", op("Sub", "top_k", op.constant(1)), op.constant(0))
        border = op("GatherElements", best, op.column(rank), axis=1)
        unlimited = op("Equal", op.column("top_k"), op.constant(0))
        floor = op("Max", floor, op("Where", unlimited, zero, border))
    return op("Where", op("GreaterOrEqual", probabilities, floor), probabilities, zero)


def _draw(op: GraphText, kept: str, vocabulary_size: int, *, best: str, settled: str) -> str:
    """The token of each row; `best`, where that is settled; [rows]."""
    wanted = op("Mul", op("Squeeze", op.total(kept), op.constant([1])), "top_p")
    pending = op("Where", settled, best, op.constant(PENDING))
    below_all = numpy_helper.from_array(np.array([-1], np.float32))
    pivot = op("ConstantOfShape", op("Shape", best), value=below_all)
    some = op("Less", op("ReduceMin", pending, keepdims=0), op.constant(0))
    body = _attempt(kept, wanted, vocabulary_size)
    drawn = op("Loop", op.constant(ATTEMPTS), some, pending, pivot, outputs=2, body=body)
    return op("Where", op("Equal", drawn, op.constant(PENDING)), best, drawn)


def _attempt(kept: str, wanted: str, vocabulary_size: int) -> onnx.GraphProto:
    """One attempt for the rows that are pending. Carries token [rows], and pivot [rows], the probability of what was
    rejected last."""
    op = GraphText("attempt")
    axis, zero = op.constant([1]), op.constant(0, np.float32)
    rows = op("Squeeze", op("NonZero", op("Equal", "token_before", op.constant(PENDING))), op.constant([0]))
    mine = op("Gather", kept, rows)
    left = op("Where", op("Greater", mine, op.column(op("Gather", "pivot_before", rows))), mine, zero)
    cumulative = op("CumSum", left, op.constant(1))
    last = op("Slice", cumulative, op.constant([-1]), op.constant([np.iinfo(np.int64).max]), axis)
    uniform = op("Gather", op("Gather", "uniform", "attempt", axis=1), rows)
    reached = op("LessOrEqual", cumulative, op("Mul", op.column(uniform), last))
    index = op("Cast", op.total(op("Cast", reached, to=TensorProto.FLOAT)), to=TensorProto.INT64)
    token = op("Min", index, op.constant(vocabulary_size - 1))
    pivot = op("GatherElements", left, token, axis=1)
    better = op("Squeeze", op.total(op("Where", op("Greater", left, pivot), left, zero)), axis)
    whole = op("GreaterOrEqual", op("Gather", "top_p", rows), op.constant(1, np.float32))
    accepted = op("Or", whole, op("Less", better, op("Gather", wanted, rows)))
    verdict = op("Where", accepted, op("Squeeze", token, axis), op.constant(PENDING))
    tokens = op("ScatterElements", "token_before", rows, verdict)
    pivots = op("ScatterElements", "pivot_before", rows, op("Squeeze", pivot, axis))
    again = op("Less", op("ReduceMin", tokens, keepdims=0), op.constant(0))
    carried = [("token_before", TensorProto.INT64, ["rows"]), ("pivot_before", TensorProto.FLOAT, ["rows"])]
    inputs = [("attempt", TensorProto.INT64, []), ("go", TensorProto.BOOL, []), *carried]
    outputs = [(again, TensorProto.BOOL, []), (tokens, TensorProto.INT64, ["rows"])]
    return op.graph("attempt", inputs, [*outputs, (pivots, TensorProto.FLOAT, ["rows"])])
