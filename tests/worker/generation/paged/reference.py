"""PagedAttention in standard operators, for devices that have no kernel for it.

Each new token looks at all positions of its row's blocks, and a mask hides those behind it. What that wastes does not
matter to tiny models.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT
QUANTISED: dict[int, float] = {TensorProto.INT8: 127.0}
"""The largest magnitude of a quantised element, by its type."""


def with_reference(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same model without PagedAttention nodes. Raises NotImplementedError for what the reference has not got."""
    graph = model.graph
    types = {port.name: port.type.tensor_type.elem_type for port in graph.input}
    op, nodes = Ops(), list[onnx.NodeProto]()
    positions: dict[tuple[str, ...], Positions] = {}
    for node in graph.node:
        if node.op_type == "PagedAttention":
            lengths = tuple(node.input[5:8])
            if lengths not in positions:
                positions[lengths] = Positions(op, *lengths)
            Attention(op, node, types[node.input[3]]).build(positions[lengths])
            nodes += op.drain()
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(op.constants)
    return model


class Ops:
    """Nodes and constants under construction: `op("Add", a, b)` answers the name of the sum."""

    def __init__(self) -> None:
        self.constants: list[onnx.TensorProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._count = 0

    def __call__(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or self._fresh()
        self._nodes.append(helper.make_node(operator, list(inputs), [output], **attributes))
        return output

    def split(self, source: str, axis: int, *sizes: int) -> list[str]:
        parts = [self._fresh() for _ in sizes]
        self._nodes.append(helper.make_node("Split", [source, self.ints(*sizes)], parts, axis=axis))
        return parts

    def ints(self, *values: int) -> str:
        return self._constant(np.array(values, np.int64))

    def scalar(self, value: float, like: str | None = None) -> str:
        """Of the element type that `like` has, or an int64."""
        if like is None:
            return self._constant(np.array(value, np.int64))
        return self("CastLike", self._constant(np.array(value, np.float32)), like)

    def cast(self, source: str, element_type: int) -> str:
        return self("Cast", source, to=element_type)

    def reshape(self, source: str, *dims: int) -> str:
        return self("Reshape", source, self.ints(*dims))

    def unsqueeze(self, source: str, *axes: int) -> str:
        return self("Unsqueeze", source, self.ints(*axes))

    def drain(self) -> list[onnx.NodeProto]:
        drained, self._nodes = self._nodes, []
        return drained

    def _constant(self, values: np.ndarray[Any, Any]) -> str:
        self.constants.append(numpy_helper.from_array(values, self._fresh()))
        return self.constants[-1].name

    def _fresh(self) -> str:
        self._count += 1
        return f"reference/{self._count}"


class Positions:
    """Of each packed token: its row [tokens] and its position in the row's text [tokens]; of all blocks in its row:
    `table` [tokens, blocks]."""

    def __init__(self, op: Ops, cumulative: str, past: str, table: str) -> None:
        starts = op.cast(cumulative, INT64)
        count = op("Gather", starts, op.scalar(-1))
        tokens = op("Range", op.scalar(0), count, op.scalar(1))
        ends = op("Slice", starts, op.ints(1), op.ints(1 << 30), op.ints(0))
        passed = op("LessOrEqual", op.unsqueeze(ends, 1), op.unsqueeze(tokens, 0))
        self.row = op("ReduceSum", op.cast(passed, INT64), op.ints(0), keepdims=0)
        new = op("Sub", tokens, op("Gather", starts, self.row))
        self.position = op("Add", op("Gather", op.cast(past, INT64), self.row), new)
        self.table = op("Gather", op.cast(table, INT64), self.row, axis=0)


class Attention:
    """One node. T tokens, H query and K key heads of D elements, blocks of S positions, W blocks a row."""

    def __init__(self, op: Ops, node: onnx.NodeProto, cache_type: int) -> None:
        self.op = op
        self.inputs = [*node.input, *[""] * (17 - len(node.input))]
        self.outputs = node.output
        self.cache_type = cache_type
        self.attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        self.heads, self.kv_heads = self.attributes["num_heads"], self.attributes["kv_num_heads"]
        strange = {"rotary_offset", "v_head_size"} & {name for name, value in self.attributes.items() if value}
        if strange or self.attributes.get("kv_cache_layout", b"SEPARATE") != b"SEPARATE" or any(self.inputs[10:14]):
            raise NotImplementedError(f"{node.name} has inputs or attributes that the reference does not know")

    def build(self, positions: Positions) -> None:
        query, key, value = self._query_key_value()
        if self.attributes.get("do_rotary"):
            query, key = (self._rotate(states, positions.position) for states in (query, key))
        slots = self._slots(positions)
        keys = self._written(3, key, slots, self.inputs[14], self.outputs[1])
        values = self._written(4, value, slots, self.inputs[15], self.outputs[2])
        keys = self._read(keys, positions.table, self.inputs[14], query)
        values = self._read(values, positions.table, self.inputs[15], query)
        self._attend(query, keys, values, positions.position)

    def _query_key_value(self) -> list[str]:
        """[T, heads, D] each."""
        op, heads = self.op, (self.heads, self.kv_heads, self.kv_heads)
        if self.inputs[1]:
            states = zip(self.inputs[:3], heads, strict=True)
            return [op("Reshape", state, op.ints(0, count, -1)) for state, count in states]
        return op.split(op.reshape(self.inputs[0], 0, sum(heads), -1), 1, *heads)

    def _rotate(self, states: str, position: str) -> str:
        """Turns each head's first 2R elements by its position's angles; `cos_cache` is [positions, R]."""
        op = self.op
        cos, sin = (op.unsqueeze(op("Gather", cache, position, axis=0), 1) for cache in self.inputs[8:10])
        half = op("Shape", cos, start=2)
        zero, double, end, axis = op.ints(0), op("Mul", half, op.ints(2)), op.ints(1 << 30), op.ints(2)
        rest = op("Slice", states, double, end, axis)
        if self.attributes.get("rotary_interleaved"):
            pairs = op("Slice", states, zero, double, axis)
            first, second = (op("Slice", pairs, op.ints(start), end, axis, op.ints(2)) for start in (0, 1))
        else:
            first, second = op("Slice", states, zero, half, axis), op("Slice", states, half, double, axis)
        turned = (
            op("Sub", op("Mul", first, cos), op("Mul", second, sin)),
            op("Add", op("Mul", second, cos), op("Mul", first, sin)),
        )
        if self.attributes.get("rotary_interleaved"):
            paired = op("Concat", *(op.unsqueeze(part, 3) for part in turned), axis=3)
            return op("Concat", op("Reshape", paired, op.ints(0, 0, -1)), rest, axis=2)
        return op("Concat", *turned, rest, axis=2)

    def _slots(self, positions: Positions) -> str:
        """Where each token's key and value go: (block, position in it) [T, 2]."""
        op = self.op
        size = op("Squeeze", op("Shape", self.inputs[3], start=1, end=2))
        index = op.unsqueeze(op("Div", positions.position, size), 1)
        block = op("GatherElements", positions.table, index, axis=1)
        return op("Concat", block, op.unsqueeze(op("Mod", positions.position, size), 1), axis=1)

    def _written(self, cache: int, states: str, slots: str, scale: str, output: str) -> str:
        """The cache with the new states in it, as the node's output."""
        op = self.op
        if scale:
            most = QUANTISED[self.cache_type]
            steps = op("Round", op("Div", op.cast(states, FLOAT), self._scale(scale)))
            least, largest = (op("CastLike", op.cast(op.scalar(bound), FLOAT), steps) for bound in (-most - 1, most))
            states = op("Cast", op("Clip", steps, least, largest), to=self.cache_type)
        return op("ScatterND", self.inputs[cache], slots, states, output=output)

    def _read(self, cache: str, table: str, scale: str, like: str) -> str:
        """The states [T, K, W * S, D] of all positions in each token's row."""
        op = self.op
        dims = op("Shape", cache, start=2)
        flat = op("Concat", op.ints(0, -1), dims, axis=0)
        states = op("Reshape", op("Gather", cache, table, axis=0), flat)
        if scale:
            states = op("CastLike", op("Mul", op.cast(states, FLOAT), self._scale(scale)), like)
        return op("Transpose", states, perm=[0, 2, 1, 3])

    def _scale(self, scale: str) -> str:
        """Of all elements, or [K, D] of each."""
        op = self.op
        whole = self.attributes["k_quant_type"] == b"PER_TENSOR"
        return op("Squeeze", scale) if whole else op("Squeeze", scale, op.ints(1))

    def _attend(self, query: str, keys: str, values: str, position: str) -> None:
        op = self.op
        grouped = op("Reshape", query, op.ints(0, self.kv_heads, self.heads // self.kv_heads, -1))
        scores = op("MatMul", grouped, op("Transpose", keys, perm=[0, 1, 3, 2]))
        scale = self.attributes.get("scale") or 0.0
        if scale:
            scores = op("Mul", scores, op.scalar(scale, scores))
        else:
            size = op("CastLike", op("Squeeze", op("Shape", query, start=2)), scores)
            scores = op("Div", scores, op("Sqrt", size))
        if cap := self.attributes.get("softcap"):
            limit = op.scalar(cap, scores)
            scores = op("Mul", op("Tanh", op("Div", scores, limit)), limit)
        seen = self._seen(keys, position)
        hidden = op.scalar(float("-inf"), scores)
        shares = op("Softmax", op("Where", op.unsqueeze(seen, 1, 2), scores, hidden), axis=-1)
        # What stands in positions that are not seen may be no number, and 0 times that is none either.
        values = op("Where", op.unsqueeze(seen, 1, 3), values, op.scalar(0.0, values))
        attended = op("MatMul", shares, values)
        op("Reshape", attended, op.ints(0, -1), output=self.outputs[0])

    def _seen(self, keys: str, position: str) -> str:
        """Which positions each token looks at: bool [T, W * S]."""
        op = self.op
        length = op("Squeeze", op("Shape", keys, start=2, end=3))
        all_positions = op.unsqueeze(op("Range", op.scalar(0), length, op.scalar(1)), 0)
        own = op.unsqueeze(position, 1)
        seen = op("LessOrEqual", all_positions, own)
        window = self.attributes.get("local_window_size", -1)
        if window > 0:
            seen = op("And", seen, op("Greater", all_positions, op("Sub", own, op.scalar(window))))
        return seen
