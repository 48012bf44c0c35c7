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
BAN = -1e30
"""Added to a logit, it leaves a probability of 0."""
EDITS: Sequence[Sequence[Any]] = [
    ("bias_index", TensorProto.INT64, ["biases", 2]),
    ("bias", TensorProto.FLOAT, ["biases"]),
    ("penalty_index", TensorProto.INT64, ["penalties", 2]),
    ("repetition", TensorProto.FLOAT, ["penalties"]),
    ("subtracted", TensorProto.FLOAT, ["penalties"]),
    ("mask_index", TensorProto.INT64, ["masks", 1]),
]
ATTEMPTS = 32
"""After so many rejections the best token is taken. An attempt is accepted with a probability of at least top_p, and a
rejection drops half of what is left on average, so that a second is rare and a tenth is not seen."""
BLOCK = 128
ALMOST = 1 - 2**-20
"""Of a total: where rounding would pass the end, the last that has a mass is drawn."""
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

    def name(self, operator: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        """An operation whose results are outputs of the graph."""
        self.nodes.append(helper.make_node(operator, list(inputs), list(outputs), **attributes))

    def constant(self, value: float | Sequence[Any], dtype: type[np.generic] = np.int64) -> str:
        name = f"{self._prefix}_constant_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(np.array(value, dtype), name))
        return name

    def column(self, rows: str) -> str:
        """[rows] → [rows, 1]."""
        return self("Unsqueeze", rows, self.constant([1]))

    def total(self, matrix: str, keepdims: int = 1) -> str:
        """The sum of each row."""
        return self("ReduceSum", matrix, self.constant([1]), keepdims=keepdims)

    def only(self, matrix: str, condition: str) -> str:
        """The values for which a condition holds, 0 in place of others."""
        return self("Mul", matrix, self("Cast", condition, to=TensorProto.FLOAT))

    def graph(self, name: str, inputs: Sequence[Sequence[Any]], outputs: Sequence[Sequence[Any]]) -> onnx.GraphProto:
        """Ports are (name, element type, shape)."""
        sources, targets = ([helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs))
        return helper.make_graph(self.nodes, name, sources, targets, self.initializers)


def build(*, logits_type: int, vocabulary_size: int, greedy: bool, top_k: bool, min_p: bool, edited: bool) -> bytes:
    """A model with input logits [rows, 1, vocabulary] and output token int64 [rows], `INVALID` where a row's logits
    are not all finite.

    Unless greedy: inputs temperature, top_p float [rows]; uniform float [rows, ATTEMPTS]. With top_k: inputs top_k
    int64 [rows], candidates int64 [1], the largest of them. With min_p: min_p float [rows]. With edited: those of
    `_edited`.
    """
    op = GraphText("main")
    inputs: list[Sequence[Any]] = [("logits", logits_type, ["rows", 1, vocabulary_size])]
    scores = op("Cast", op("Squeeze", "logits", op.constant([1])), to=TensorProto.FLOAT)
    zero = op.constant(0, np.float32)
    finite = op("Equal", op("Mul", op.total(scores, keepdims=0), zero), zero)
    if edited:
        inputs += EDITS
        inputs.append(("mask", TensorProto.UINT8, ["masks", -(-vocabulary_size // 8)]))
        scores = _edited(op, scores, zero, vocabulary_size)
    token = op("ArgMax", scores, axis=1, keepdims=0)
    if top_k:
        inputs += [("top_k", TensorProto.INT64, ["rows"]), ("candidates", TensorProto.INT64, [1])]
    if not greedy:
        inputs += [(name, TensorProto.FLOAT, ["rows"]) for name in ("temperature", "top_p", *["min_p"] * min_p)]
        inputs += [("uniform", TensorProto.FLOAT, ["rows", ATTEMPTS])]
        settled = op("Or", op("Equal", "temperature", zero), op("Not", finite))
        kept = _kept(op, scores, zero, top_k=top_k, min_p=min_p)
        token = _draw(op, kept, vocabulary_size, best=token, settled=settled)
    op.name("Where", [finite, token, op.constant(INVALID)], ["token"])
    return model(op.graph("sampling", inputs, [("token", TensorProto.INT64, ["rows"])]))


def model(graph: onnx.GraphProto) -> bytes:
    opset = helper.make_opsetid("", OPSET)
    return bytes(helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION).SerializeToString())


def _edited(op: GraphText, scores: str, zero: str, vocabulary_size: int) -> str:
    """Logits [rows, vocabulary] behind their biases, penalties and masks.

    Inputs: bias_index int64 [biases, 2] of (row, token id), a pair as often as it likes, and bias float [biases];
    penalty_index int64 [penalties, 2], each pair once, repetition and subtracted float [penalties]; mask_index int64
    [masks, 1] of rows, mask uint8 [masks, vocabulary / 8], of which bit i % 8 of byte i // 8 allows token i.
    """
    scores = op("ScatterND", scores, "bias_index", "bias", reduction="add")
    logit = op("GatherND", scores, "penalty_index")
    positive = op("Greater", logit, zero)
    scaled = op("Where", positive, op("Div", logit, "repetition"), op("Mul", logit, "repetition"))
    scores = op("ScatterND", scores, "penalty_index", op("Sub", scaled, "subtracted"))
    bits = op.constant((~np.arange(256)[:, np.newaxis] >> np.arange(8) & 1).tolist(), np.float32)
    spread = op("Gather", bits, op("Cast", "mask", to=TensorProto.INT32))
    forbidden = op("Reshape", spread, op.constant([0, spread_size(vocabulary_size)]))
    forbidden = op("Slice", forbidden, op.constant([0]), op.constant([vocabulary_size]), op.constant([1]))
    masked = op("Add", op("GatherND", scores, "mask_index"), op("Mul", forbidden, op.constant(BAN, np.float32)))
    return op("ScatterND", scores, "mask_index", masked)


def spread_size(vocabulary_size: int) -> int:
    """Bits in a row of the mask."""
    return -(-vocabulary_size // 8) * 8


def _kept(op: GraphText, scores: str, zero: str, *, top_k: bool, min_p: bool) -> str:
    """The probabilities after the temperature, 0 below the floor; [rows, vocabulary]."""
    temperature = op("Where", op("Equal", "temperature", zero), op.constant(1, np.float32), "temperature")
    shifted = op("Sub", scores, op("ReduceMax", scores, op.constant([1]), keepdims=1))
    probabilities = op("Softmax", op("Div", shifted, op.column(temperature)), axis=1)
    floors = []
    if min_p:
        peak = op("ReduceMax", probabilities, op.constant([1]), keepdims=1)
        floors.append(op("Mul", op.column("min_p"), peak))
    if top_k:
        best = op("TopK", probabilities, "candidates", axis=1, outputs=2)
        rank = op("Max", op("Sub", "top_k", op.constant(1)), op.constant(0))
        border = op("GatherElements", best, op.column(rank), axis=1)
        unlimited = op("Equal", op.column("top_k"), op.constant(0))
        floors.append(op("Where", unlimited, zero, border))
    for floor in floors:
        probabilities = op.only(probabilities, op("GreaterOrEqual", probabilities, floor))
    return probabilities


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
    axis = op.constant([1])
    rows = op("Squeeze", op("NonZero", op("Equal", "token_before", op.constant(PENDING))), op.constant([0]))
    mine = op("Gather", kept, rows)
    left = op.only(mine, op("Greater", mine, op.column(op("Gather", "pivot_before", rows))))
    uniform = op.column(op("Gather", op("Gather", "uniform", "attempt", axis=1), rows))
    token = _invert(op, left, uniform, vocabulary_size)
    pivot = op("GatherElements", left, token, axis=1)
    better = op("Squeeze", op.total(op.only(left, op("Greater", left, pivot))), axis)
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


def _invert(op: GraphText, masses: str, uniform: str, vocabulary_size: int) -> str:
    """The index at which the cumulative masses [rows, vocabulary] pass `uniform` [rows, 1] of their total; [rows, 1].
    First among blocks, then within one, since a running sum over the vocabulary is slow. What is drawn has a mass,
    where anything has one."""
    blocks = -(-vocabulary_size // BLOCK)
    if vocabulary_size % BLOCK:
        masses = op("Pad", masses, op.constant([0, 0, 0, blocks * BLOCK - vocabulary_size]))
    grid = op("Reshape", masses, op.constant([0, blocks, BLOCK]))
    sums = op("ReduceSum", grid, op.constant([2]), keepdims=0)
    reached, total = _running(op, sums)
    target = op("Min", op("Mul", uniform, total), op("Mul", total, op.constant(ALMOST, np.float32)))
    block = op("Min", _count(op, op("LessOrEqual", reached, target)), op.constant(blocks - 1))
    before = op("GatherElements", op("CumSum", sums, op.constant(1), exclusive=1), block, axis=1)
    within, mass = _running(op, op("GatherND", grid, block, batch_dims=1))
    rest = op("Max", op("Sub", target, before), op.constant(0, np.float32))
    rest = op("Min", rest, op("Mul", mass, op.constant(ALMOST, np.float32)))
    index = _count(op, op("LessOrEqual", within, rest))
    index = op("Add", op("Mul", block, op.constant(BLOCK)), index)
    return op("Min", index, op.constant(vocabulary_size - 1))


def _running(op: GraphText, masses: str) -> tuple[str, str]:
    """The running sums of each row, and the last of them, [rows, 1]."""
    sums = op("CumSum", masses, op.constant(1))
    ends = op.constant([-1]), op.constant([np.iinfo(np.int64).max]), op.constant([1])
    return sums, op("Slice", sums, *ends)


def _count(op: GraphText, conditions: str) -> str:
    """How many hold in each row, [rows, 1]."""
    return op("Cast", op.total(op("Cast", conditions, to=TensorProto.FLOAT)), to=TensorProto.INT64)
