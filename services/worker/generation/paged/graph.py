"""What a decoder graph of the PagedAttention dialect must be, and how it is served.

Ports are as onnxruntime-genai's model builder 0.18 writes them. At load every attention node is made to read the one
block table, and where the graph gives the logits of all tokens, its head is made to see only those asked for. Weights
stay in the external data file: the graph in memory refers to it.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from services.worker.generation.config import DecoderConfig
from services.worker.generation.heads import find_head

TABLE = "block_table"
"""int32 [rows, blocks]: where each row's positions lie."""
CUMULATIVE = "cumulative_sequence_lengths"
"""int32 [rows + 1]: where each row's new tokens begin and end."""
PAST = "past_sequence_lengths"
"""int32 [rows]: how many positions each row holds before the run."""
METADATA = "attention_metadata"
"""int32 [3], on the host: bounds for the new tokens of a row and for what it holds behind the run."""
SELECTED = "logits_indices"
"""int32 [logits]: which tokens' logits are wanted."""
NODE_INPUTS = {5: CUMULATIVE, 6: PAST, 7: TABLE, 16: METADATA}
SLOT_MAPPING_INPUT = 10
PORTS: dict[str, list[int | str]] = {
    TABLE: ["batch_size", "max_num_blocks"],
    CUMULATIVE: ["batch_size + 1"],
    PAST: ["batch_size"],
    METADATA: [3],
    SELECTED: ["num_logits"],
}

Transform = Callable[[onnx.ModelProto], onnx.ModelProto]


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedGraph:
    """A graph with inputs input_ids int64 [tokens], those of `PORTS` and the caches [blocks, block, *entry_shape], and
    outputs logits [logits, vocabulary] and the caches. Types are `onnx.TensorProto` element types."""

    model: bytes
    cache_type: int
    entry_shape: tuple[int, int]
    """(KV heads, elements of a head) of one position in a cache."""
    logits_type: int


def load(config: DecoderConfig, transform: Transform | None = None) -> PagedGraph:
    """Raises ValueError where the graph is not of the PagedAttention dialect. `transform`: what becomes of the graph
    last of all, for tests of the decoder on devices that have no kernel for PagedAttention."""
    model = onnx.load(config.graph, load_external_data=False)
    rewrite(model.graph, config)
    ports = {port.name: port.type.tensor_type for port in (*model.graph.input, *model.graph.output)}
    wanted = {config.input_ids, config.logits, *itertools.chain.from_iterable(config.caches())}
    if missing := sorted(wanted - ports.keys()):
        raise ValueError(f"the graph has no {missing[0]}")
    dims = [dim.dim_value for dim in ports[config.past_key % 0].shape.dim]
    if len(dims) != 4:
        raise ValueError(f"{config.past_key % 0} has {len(dims)} dimensions instead of 4")
    return PagedGraph(
        model=(transform(model) if transform else model).SerializeToString(),
        cache_type=ports[config.past_key % 0].elem_type,
        entry_shape=(dims[2] or config.kv_heads, dims[3] or config.head_size),
        logits_type=ports[config.logits].elem_type,
    )


def rewrite(graph: onnx.GraphProto, config: DecoderConfig) -> None:
    """Changes `graph` in place."""
    attention = [node for node in graph.node if node.op_type == "PagedAttention"]
    if len(attention) != config.layers:
        raise ValueError(f"{len(attention)} PagedAttention nodes for {config.layers} layers")
    for node in attention:
        _connect(node)
    if all(port.name != SELECTED for port in graph.input):
        _select_before_head(graph, config.logits)
    known = {config.input_ids} | {past for past, _ in config.caches()}
    kept = [port for port in graph.input if port.name in known]
    read = {name for node in graph.node if node.op_type != "PagedAttention" for name in node.input}
    strangers = sorted(read & ({port.name for port in graph.input} | PORTS.keys()) - known - {SELECTED})
    if strangers:
        raise ValueError(f"the graph needs inputs that continuous batching has no values for: {', '.join(strangers)}")
    del graph.input[:], graph.value_info[:]
    graph.input.extend(kept)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT32, dims) for name, dims in PORTS.items())


def _connect(node: onnx.NodeProto) -> None:
    """Makes an attention node read the one block table and derive from it where it writes."""
    node.input.extend([""] * (max(NODE_INPUTS) + 1 - len(node.input)))
    if node.input[SLOT_MAPPING_INPUT]:
        raise ValueError(f"{node.name} has a slot mapping beside the block table: {node.input[SLOT_MAPPING_INPUT]}")
    for index, name in NODE_INPUTS.items():
        node.input[index] = name


def _select_before_head(graph: onnx.GraphProto, logits: str) -> None:
    """Puts a Gather of `SELECTED` before the head."""
    head = find_head(graph, logits)
    if head is None:
        raise ValueError(f"the graph has no {SELECTED} and no head that is known to be one before {logits}")
    selected = f"{head.input[0]}/selected"
    gather = helper.make_node("Gather", [head.input[0], SELECTED], [selected], "millrace/selected", axis=0)
    head.input[0] = selected
    graph.node.insert(list(graph.node).index(head), gather)
    output = next(port for port in graph.output if port.name == logits)
    output.type.tensor_type.shape.dim[0].dim_param = "num_logits"
