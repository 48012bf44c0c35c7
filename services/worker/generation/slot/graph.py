"""Rewrites a builder-style decoder graph for continuous batching, at load and in memory.

The model builder computes each row's length from an attention mask [rows, total]. Here the lengths themselves become
inputs, so that nothing that grows with the context crosses from the host in a step, rows that decode and a chunk of a
prompt go through the model together (`mixed`), and the language-model head sees only the positions whose logits are
wanted. Weights stay in the external data file: the rewritten graph refers to it.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import onnx
from onnx import TensorProto, helper

from services.worker.generation.config import DecoderConfig
from services.worker.generation.heads import find_head
from services.worker.generation.slot import mixed
from services.worker.generation.slot.quantise import Arrays, Scheme, quantise

POSITIONS = "logits_positions"
"""int64 [positions]: which tokens of the run have their logits computed."""

ROTATIONS = 7
"""Which of GroupQueryAttention's inputs is the table of cosines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderGraph:
    """A graph with inputs input_ids int64 [1, tokens], those of `mixed`, `POSITIONS` and the caches [rows, kv_heads,
    length, head], and outputs logits [1, positions, vocabulary] and the caches. Types are `onnx.TensorProto` element
    types."""

    model: bytes
    weights: Arrays
    """Those that are not in the model's file, by name."""
    cache_type: int
    logits_type: int
    takes_positions: bool
    """Whether int64 [1, tokens], each token's position in its sequence, is an input too."""
    most_positions: int
    """Of a sequence, as far as the graph's tables of positions reach."""
    skips_head: bool
    """Whether a run may want no logits at all: the head's kernel takes no rows too."""


def load(config: DecoderConfig, scheme: Scheme | None = None) -> DecoderGraph:
    """Raises ValueError where the graph is not of the GroupQueryAttention dialect."""
    model = onnx.load(config.graph, load_external_data=False)
    rewrite(model.graph, config)
    weights = {} if scheme is None else quantise(model, config.graph.parent, scheme)
    types = {port.name: port.type.tensor_type.elem_type for port in (*model.graph.input, *model.graph.output)}
    wanted = {config.input_ids, config.logits, *itertools.chain.from_iterable(config.caches())}
    if missing := sorted(wanted - types.keys()):
        raise ValueError(f"the graph has no {missing[0]}")
    return DecoderGraph(
        model=model.SerializeToString(),
        weights=weights,
        cache_type=types[config.past_key % 0],
        logits_type=types[config.logits],
        takes_positions=config.position_ids in types,
        most_positions=_most_positions(model.graph, config),
        skips_head=_skips_head(model.graph),
    )


def rewrite(graph: onnx.GraphProto, config: DecoderConfig) -> None:
    """Changes `graph` in place."""
    attention = [node for node in graph.node if node.op_type == "GroupQueryAttention"]
    if len(attention) != config.layers:
        raise ValueError(f"{len(attention)} GroupQueryAttention nodes for {config.layers} layers")
    mixed.mix(graph, config.caches())
    _keep_positions(graph, config.logits)
    _drop_unused(graph)
    graph.input.append(helper.make_tensor_value_info(POSITIONS, TensorProto.INT64, ["positions"]))
    pasts = [past for past, _ in config.caches()]
    ours = {POSITIONS, mixed.SPLIT, *mixed.PORTS, *map(mixed.chunk_port, pasts)}
    known = {config.input_ids, config.position_ids, *pasts, *ours}
    strangers = sorted({port.name for port in graph.input} - known)
    if strangers:
        raise ValueError(f"the graph needs inputs that continuous batching has no values for: {', '.join(strangers)}")


def _most_positions(graph: onnx.GraphProto, config: DecoderConfig) -> int:
    """The rows of the shortest table of rotations, or of learned embeddings of positions."""
    rotated = [node for node in graph.node if node.op_type == "GroupQueryAttention" and len(node.input) > ROTATIONS]
    embedded = [node for node in graph.node if node.op_type == "Gather" and node.input[1] == config.position_ids]
    tables = {node.input[ROTATIONS] for node in rotated} | {node.input[0] for node in embedded}
    return min((t.dims[0] for t in graph.initializer if t.name in tables and t.dims), default=config.context_length)


def _keep_positions(graph: onnx.GraphProto, logits: str) -> None:
    """Puts a Gather of `POSITIONS` before the head, or behind the logits where no head is recognised; one that keeps
    the last position, as the builder's `prune_lm_head` writes it, goes."""
    head = find_head(graph, logits)
    if head is not None:
        source, target = _unpruned(graph, head.input[0]), f"{head.input[0]}/wanted"
        head.input[0], place = target, list(graph.node).index(head)
    else:
        source, target, place = f"{logits}/all", logits, len(graph.node)
        for node in graph.node:
            node.output[:] = [source if name == logits else name for name in node.output]
    graph.node.insert(place, helper.make_node("Gather", [source, POSITIONS], [target], "millrace/wanted", axis=1))
    output = next((port for port in graph.output if port.name == logits), None)
    if output is None:
        raise ValueError(f"the graph has no {logits}")
    output.type.tensor_type.shape.dim[1].dim_param = "positions"
    del graph.value_info[:]


def _skips_head(graph: onnx.GraphProto) -> bool:
    wanted = next(node.output[0] for node in graph.node if POSITIONS in node.input)
    return {node.op_type for node in graph.node if wanted in node.input} <= {"MatMul"}


def _unpruned(graph: onnx.GraphProto, hidden: str) -> str:
    """The states of all positions, where `hidden` holds the last one's alone."""
    producers = {name: node for node in graph.node for name in node.output}
    node = producers.get(hidden)
    if node is not None and node.op_type == "Unsqueeze":
        node = producers.get(node.input[0])
    along = next((a.i for a in node.attribute if a.name == "axis"), 0) if node is not None else 0
    return str(node.input[0]) if node is not None and node.op_type == "Gather" and along == 1 else hidden


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
