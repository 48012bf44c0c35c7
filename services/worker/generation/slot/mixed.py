"""One run for the rows that decode and for a chunk of a prompt, so that the weights are read once for both.

All tokens of a run stand in one line, [1, decoding + chunk]. Whatever works on each token by itself takes the line as
it is; around each attention it is split: the decoding tokens become rows of one token, each with its own length, and
the chunk stays one row of many, for the CPU kernel of GroupQueryAttention in ONNX Runtime 1.31 takes several tokens a
row behind a past for one row only.

    q, k, v ─ Split ─┬─ Transpose ─ GroupQueryAttention, caches of the first rows ─ Transpose ─┬─ Concat
                     └───────────── GroupQueryAttention, cache of the chunk's row ─────────────┘
"""

import onnx
from onnx import TensorProto, helper

SPLIT = "decoding_and_chunk"
"""int64 [2]: how many tokens decode, and how many the chunk has; at least one each."""
LENGTHS, TOTAL = "seqlens_k", "total_sequence_length"
"""int32 [decoding]: each row's length in the cache behind this run, minus one; int32 [1], on the host: the longest
row's length behind this run."""
CHUNK_LENGTHS, CHUNK_TOTAL = "chunk_seqlens_k", "chunk_total_sequence_length"
"""int32 [1] each: the same of the chunk's row."""
STATES, CACHES, LENGTHS_INPUT, TOTAL_INPUT = 3, (3, 4), 5, 6
PORTS: dict[str, int | str] = {LENGTHS: "batch_size", TOTAL: 1, CHUNK_LENGTHS: 1, CHUNK_TOTAL: 1}


def chunk_port(name: str) -> str:
    """What the port of a cache is called for the chunk's row."""
    return f"chunk_{name}"


def mix(graph: onnx.GraphProto, caches: list[tuple[str, str]]) -> None:
    """Changes `graph` in place. `caches`: its (past, present) ports."""
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += _attention(node) if node.op_type == "GroupQueryAttention" else [node]
    del graph.node[:]
    graph.node.extend(nodes)
    ports = {port.name: port for port in (*graph.input, *graph.output)}
    for past, present in caches:
        for name, side in ((past, graph.input), (present, graph.output)):
            if name in ports:
                side.add().CopyFrom(ports[name])
                side[-1].name = chunk_port(name)
    graph.input.extend(helper.make_tensor_value_info(name, TensorProto.INT32, [size]) for name, size in PORTS.items())
    graph.input.append(helper.make_tensor_value_info(SPLIT, TensorProto.INT64, [2]))


def _attention(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    nodes: list[onnx.NodeProto] = []
    rows, chunk = onnx.NodeProto(), onnx.NodeProto()
    for copy, part in ((rows, "rows"), (chunk, "chunk")):
        copy.CopyFrom(node)
        copy.name = f"{node.name}/{part}"
        _keep_whole_cache(copy)
        copy.output[0] = f"{node.output[0]}/{part}"
    for index, state in enumerate(node.input[:STATES]):
        if state:
            parts = [f"{node.output[0]}/{index}/{part}" for part in ("line", "chunk")]
            nodes.append(helper.make_node("Split", [state, SPLIT], parts, f"{node.name}/{index}/split", axis=1))
            rows.input[index], chunk.input[index] = f"{node.output[0]}/{index}/rows", parts[1]
            nodes.append(_turned(parts[0], rows.input[index]))
    rows.input[LENGTHS_INPUT], rows.input[TOTAL_INPUT] = LENGTHS, TOTAL
    chunk.input[LENGTHS_INPUT], chunk.input[TOTAL_INPUT] = CHUNK_LENGTHS, CHUNK_TOTAL
    for index in CACHES:
        chunk.input[index] = chunk_port(node.input[index])
    for index in range(1, len(node.output)):
        chunk.output[index] = chunk_port(node.output[index])
    line = f"{rows.output[0]}/line"
    joined = helper.make_node("Concat", [line, chunk.output[0]], [node.output[0]], f"{node.name}/join", axis=1)
    return [*nodes, rows, chunk, _turned(rows.output[0], line), joined]


def _keep_whole_cache(node: onnx.NodeProto) -> None:
    """A layer with a window looks no further back than that, but its cache holds the whole sequence as the others' do:
    the operator is not to drop what it no longer looks at."""
    kept = [attribute for attribute in node.attribute if attribute.name != "sliding_window_cache"]
    del node.attribute[:]
    node.attribute.extend(kept)


def _turned(source: str, target: str) -> onnx.NodeProto:
    """[1, rows, size] to [rows, 1, size], or back."""
    return helper.make_node("Transpose", [source], [target], f"/{target}", perm=[1, 0, 2])
