"""Rewrites a builder-style decoder graph for continuous batching, at load and in memory.

The model builder computes each row's length from an attention mask [rows, total]. Here the lengths themselves become
inputs, so that nothing that grows with the context crosses from the host in a step, and the language-model head sees
only the last position of each row. Weights stay in the external data file: the rewritten graph refers to it.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from services.worker.generation.config import DecoderConfig

LENGTHS = "seqlens_k"
"""int32 [rows]: each row's length in the cache behind this run, minus one."""
TOTAL = "total_sequence_length"
"""int32 [1], on the host: the longest row's length behind this run."""
LENGTHS_INPUT, TOTAL_INPUT = 5, 6
HEADS = frozenset({"MatMul", "MatMulNBits"})
ELEMENTWISE = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Tanh", "Where"})


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderGraph:
    """A graph with inputs input_ids int64 [rows, tokens], `LENGTHS`, `TOTAL` and the caches [rows, kv_heads, length,
    head], and outputs logits [rows, 1, vocabulary] and the caches. Types are `onnx.TensorProto` element types."""

    model: bytes
    cache_type: int
    logits_type: int


def load(config: DecoderConfig) -> DecoderGraph:
    """Raises ValueError where the graph is not of the GroupQueryAttention dialect."""
    model = onnx.load(config.graph, load_external_data=False)
    rewrite(model.graph, config)
    types = {port.name: port.type.tensor_type.elem_type for port in (*model.graph.input, *model.graph.output)}
    wanted = {config.input_ids, config.logits, *itertools.chain.from_iterable(config.caches())}
    if missing := sorted(wanted - types.keys()):
        raise ValueError(f"the graph has no {missing[0]}")
    return DecoderGraph(
        model=model.SerializeToString(),
        cache_type=types[config.past_key % 0],
        logits_type=types[config.logits],
    )


def rewrite(graph: onnx.GraphProto, config: DecoderConfig) -> None:
    """Changes `graph` in place."""
    attention = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    if len(attention) != config.layers:
        raise ValueError(f"{len(attention)} GroupQueryAttention nodes for {config.layers} layers")
    for node in attention:
        node.input[LENGTHS_INPUT], node.input[TOTAL_INPUT] = LENGTHS, TOTAL
    _keep_last_position(graph, config.logits)
    _drop_unused(graph)
    graph.input.append(helper.make_tensor_value_info(LENGTHS, TensorProto.INT32, ["batch_size"]))
    graph.input.append(helper.make_tensor_value_info(TOTAL, TensorProto.INT32, [1]))
    known = {config.input_ids, LENGTHS, TOTAL} | {past for past, _ in config.caches()}
    strangers = sorted({port.name for port in graph.input} - known)
    if strangers:
        raise ValueError(f"the graph needs inputs that continuous batching has no values for: {', '.join(strangers)}")


def _keep_last_position(graph: onnx.GraphProto, logits: str) -> None:
    """Puts a Gather of position -1 before the head, or behind the logits where no head is recognised."""
    last = numpy_helper.from_array(np.array([-1], np.int64), "millrace/last")
    graph.initializer.append(last)
    head = _find_head(graph, logits)
    if head is not None:
        source, target = head.input[0], f"{head.input[0]}/last"
        head.input[0], place = target, list(graph.node).index(head)
    else:
        source, target, place = f"{logits}/all", logits, len(graph.node)
        for node in graph.node:
            node.output[:] = [source if name == logits else name for name in node.output]
    graph.node.insert(place, helper.make_node("Gather", [source, last.name], [target], "millrace/last", axis=1))
    output = next((port for port in graph.output if port.name == logits), None)
    if output is None:
        raise ValueError(f"the graph has no {logits}")
    output.type.tensor_type.shape.dim[1].dim_value = 1
    del graph.value_info[:]


def _find_head(graph: onnx.GraphProto, logits: str) -> onnx.NodeProto | None:
    producers = {name: node for node in graph.node for name in node.output}
    node = producers.get(logits)
    while node is not None and node.op_type in ELEMENTWISE:
        node = next((producers[name] for name in node.input if name in producers), None)
    return node if node is not None and node.op_type in HEADS else None


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Removes nodes, initialisers and inputs that no output depends on any more."""
    needed = {port.name for port in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    _replace(graph.node, kept[::-1])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    _replace(graph.input, [port for port in graph.input if port.name in needed])


def _replace(repeated: Any, items: list[Any]) -> None:
    del repeated[:]
    repeated.extend(items)
