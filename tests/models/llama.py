"""The graph, with the nodes, names and ports that onnxruntime-genai's model builder 0.18 gives it.

    gqa     input_ids int64 [batch, tokens], attention_mask int64 [batch, total], past and present
            [batch, kv_heads, length, head] → logits [batch, tokens, vocabulary]
    paged   input_ids int64 [tokens], block_table int32 [batch, blocks], cumulative_sequence_lengths int32 [batch + 1],
            past_sequence_lengths int32 [batch], attention_metadata int32 [3], which lies on the host, logits_indices
            int32 [logits], past and present [blocks, positions, kv_heads, head] → logits [logits, vocabulary]

The residual stream grows with the square root of the layers, and each product is scaled by its length, so that 16-bit
floats hold all of it.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto

from tests.models.drawing import Drawing, Ports, port
from tests.models.shapes import Llama

QUERY_KEY_GAIN, VALUE_GAIN, HEAD_GAIN = 2.0, 1.0, 3.0
DEVIATIONS = 5.0
"""How many standard deviations of keys and values int8 covers."""
EPSILON = 1e-6
FLOAT = TensorProto.FLOAT
ONE = "/model/constants/INT64/[1]"
PAGED_SPANS = ["cumulative_sequence_lengths", "past_sequence_lengths", "block_table"]


def build(shape: Llama) -> onnx.ModelProto:
    """With the weights inside."""
    return draw(shape).model(*_ports(shape))


def write(shape: Llama, path: Path) -> None:
    """Writes the graph, and beside it its weights, where the shape wants them in a file of their own."""
    if shape.external_data:
        draw(shape).save(path, *_ports(shape))
    else:
        path.write_bytes(build(shape).SerializeToString())


def plain_inputs(shape: Llama) -> dict[str, tuple[int, list[int | str]]]:
    """Type and dimensions of the inputs that are not caches."""
    if shape.dialect == "gqa":
        return {
            "input_ids": (TensorProto.INT64, ["batch_size", "sequence_length"]),
            "attention_mask": (TensorProto.INT64, ["batch_size", "total_sequence_length"]),
        }
    return {
        "input_ids": (TensorProto.INT64, ["num_tokens"]),
        "block_table": (TensorProto.INT32, ["batch_size", "max_num_blocks"]),
        "cumulative_sequence_lengths": (TensorProto.INT32, ["batch_size + 1"]),
        "past_sequence_lengths": (TensorProto.INT32, ["batch_size"]),
        "attention_metadata": (TensorProto.INT32, [3]),
        "logits_indices": (TensorProto.INT32, ["num_logits"]),
    }


def _ports(shape: Llama) -> tuple[Ports, Ports]:
    plain = [port(name, dims, kind) for name, (kind, dims) in plain_inputs(shape).items()]
    past, present = (_caches(shape, *names) for names in (("past_key_values", "past"), ("present", "total")))
    rows: list[int | str] = ["batch_size", 1 if shape.prunes_head else "sequence_length"]
    if shape.dialect == "paged":
        rows = ["num_logits"]
    logits = port("logits", [*rows, shape.vocabulary_size], shape.logits_type)
    return [plain[0], *past, *plain[1:]] if shape.dialect == "paged" else [*plain, *past], [logits, *present]


def _caches(shape: Llama, prefix: str, span: str) -> Ports:
    dims: list[int | str] = ["batch_size", shape.kv_heads, f"{span}_sequence_length", "kv_cache_dim"]
    if shape.dialect == "paged":
        dims = ["num_blocks", "block_size", shape.kv_heads, shape.head_size]
    names = [f"{prefix}.{layer}.{kind}" for kind in ("key", "value") for layer in range(shape.layers)]
    return [port(name, dims, shape.kv_element_type) for name in names]


def draw(shape: Llama) -> Drawing:
    """Nodes, and weights that have no numbers yet."""
    graph = Drawing(seed=shape.seed, element_type=shape.element_type)
    spans = _mask_subgraph(graph) if shape.dialect == "gqa" else PAGED_SPANS
    _rotary(graph, shape)
    table = graph.random(
        shape.vocabulary_size, shape.hidden, scale=1.0, name="model.embed_tokens.weight", nan_row=shape.nan_token_id
    )
    stream, branch = graph.node("Gather", table, "input_ids", name="/model/embed_tokens/Gather"), ""
    for layer in range(shape.layers):
        stream, branch = _layer(graph, shape, layer, stream, branch, spans)
    state, _ = _norm(graph, shape, f"/model/layers.{shape.layers}/final_norm_layernorm", stream, branch)
    _head(graph, shape, state)
    return graph


def _mask_subgraph(graph: Drawing) -> list[str]:
    """The builder's `attn_mask_reformat`: row sums minus one, and the mask's width, as int32."""
    name = "/model/attn_mask_reformat/attn_mask_subgraph"
    one = graph.constant(np.array([1], np.int64), name=ONE)
    index = graph.constant(np.array(1, np.int64), name="/model/constants/INT64/1")
    sums = graph.node("ReduceSum", "attention_mask", one, name=f"{name}/ReduceSum", keepdims=0)
    last = graph.node("Sub", sums, one, name=f"{name}/Sub")
    lengths = graph.node("Cast", last, name=f"{name}/Sub/Cast", to=TensorProto.INT32)
    dims = graph.node("Shape", "attention_mask", name=f"{name}/Shape")
    width = graph.node("Gather", dims, index, name=f"{name}/Gather", axis=0)
    return [lengths, graph.node("Cast", width, name=f"{name}/Gather/Cast", to=TensorProto.INT32)]


def _rotary(graph: Drawing, shape: Llama) -> None:
    half = shape.head_size // 2
    frequencies = shape.rope_theta ** (-np.arange(half) / half)
    angles = np.outer(np.arange(shape.graph_context_length), frequencies)
    graph.constant(np.cos(angles), name="cos_cache")
    graph.constant(np.sin(angles), name="sin_cache")


def _layer(graph: Drawing, shape: Llama, layer: int, stream: str, branch: str, spans: list[str]) -> tuple[str, str]:
    """The residual stream, and what the next norm is to add to it."""
    path = f"/model/layers.{layer}"
    normed, stream = _norm(graph, shape, f"{path}/input_layernorm", stream, branch)
    branch = _attention(graph, shape, layer, normed, spans)
    if shape.dialect == "paged" and layer == shape.layers - 1:
        stream, branch = (
            graph.node("Gather", source, "logits_indices", name=f"/model/selected_rows/{which}_input/Gather", axis=0)
            for which, source in (("root", stream), ("skip", branch))
        )
    normed, stream = _norm(graph, shape, f"{path}/post_attention_layernorm", stream, branch)
    return stream, _mlp(graph, shape, f"{path}/mlp", normed)


def _norm(graph: Drawing, shape: Llama, path: str, stream: str, branch: str) -> tuple[str, str]:
    """The stream with the branch added, where there is one: normalised, and as it is."""
    weight = graph.constant(np.ones(shape.hidden), name=f"{path[1:].replace('/', '.')}.weight")
    normed, total = f"{path}/output_0", f"{path}/output_3"
    if not branch:
        attributes: dict[str, Any] = {"axis": -1, "epsilon": EPSILON, "stash_type": 1}
        name = f"{path}/LayerNorm"
        graph.node("SimplifiedLayerNormalization", stream, weight, name=name, output=normed, **attributes)
        return normed, stream
    graph.node(
        "SkipSimplifiedLayerNormalization",
        *(stream, branch, weight),
        name=f"{path}/SkipLayerNorm",
        output=normed,
        more=() if "final_norm" in path else ("", "", total),
        epsilon=EPSILON,
    )
    return normed, total


def _attention(graph: Drawing, shape: Llama, layer: int, normed: str, spans: list[str]) -> str:
    path = f"/model/layers.{layer}/attn"
    caches = [f"past_key_values.{layer}.{kind}" for kind in ("key", "value")]
    scales = _scales(graph, path) if shape.kv_precision == "int8" else []
    if shape.dialect == "paged":
        operator, further = "PagedAttention", ["", "", "", "", *(scales or ["", ""]), "attention_metadata"]
    else:
        operator, further = "GroupQueryAttention", ["", "", "", *scales]
    attended = graph.node(
        operator,
        *_projections(graph, shape, path, normed),
        *caches,
        *spans,
        *("cos_cache", "sin_cache"),
        *further,
        name=f"{path}/{operator}",
        more=(f"present.{layer}.key", f"present.{layer}.value"),
        **_attributes(shape),
    )
    return _project(graph, f"{path}/o_proj", attended, shape.heads * shape.head_size, shape.hidden)


def _attributes(shape: Llama) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        "num_heads": shape.heads,
        "kv_num_heads": shape.kv_heads,
        "scale": shape.head_size**-0.5,
        "local_window_size": -1,
        "softcap": 0.0,
        "do_rotary": 1,
        "rotary_interleaved": 0,
    }
    if shape.kv_precision == "int8":
        attributes |= {"k_quant_type": "PER_TENSOR", "v_quant_type": "PER_TENSOR"}
        attributes |= {"kv_cache_bit_width": 8} if shape.dialect == "gqa" else {}
    return attributes


def _projections(graph: Drawing, shape: Llama, path: str, normed: str) -> list[str]:
    """Query, key and value; in the paged dialect all three in the first."""
    widths = {"q": shape.heads, "k": shape.kv_heads, "v": shape.kv_heads}
    gains = {"q": QUERY_KEY_GAIN, "k": QUERY_KEY_GAIN, "v": VALUE_GAIN}
    strips = {
        name: graph.noise.take(shape.hidden, heads * shape.head_size, gains[name] * shape.hidden**-0.5)
        for name, heads in widths.items()
    }
    packs = {"qkv": list(strips.values())} if shape.dialect == "paged" else {n: [s] for n, s in strips.items()}
    projected = []
    for name, parts in packs.items():
        matrix = f"{path}/{name}_proj/MatMul"
        weight = graph.strips(shape.hidden, parts, name=_weight_name(matrix))
        projected.append(graph.node("MatMul", normed, weight, name=matrix))
    return [*projected, *[""] * (3 - len(projected))]


def _scales(graph: Drawing, path: str) -> list[str]:
    """What a step of int8 stands for in the keys and in the values."""
    gains = {"k_scale": QUERY_KEY_GAIN, "v_scale": VALUE_GAIN}
    return [
        graph.constant(
            np.array([DEVIATIONS * gain / 127]), name=f"{path[1:].replace('/', '.')}.{name}", element_type=FLOAT
        )
        for name, gain in gains.items()
    ]


def _mlp(graph: Drawing, shape: Llama, path: str, normed: str) -> str:
    gate = _project(graph, f"{path}/gate_proj", normed, shape.hidden, shape.intermediate)
    up = _project(graph, f"{path}/up_proj", normed, shape.hidden, shape.intermediate)
    sigmoid = graph.node("Sigmoid", gate, name=f"{path}/act_fn/Sigmoid")
    silu = graph.node("Mul", gate, sigmoid, name=f"{path}/act_fn/Mul")
    gated = graph.node("Mul", silu, up, name=f"{path}/Mul")
    return _project(graph, f"{path}/down_proj", gated, shape.intermediate, shape.hidden)


def _head(graph: Drawing, shape: Llama, state: str) -> None:
    if shape.prunes_head and shape.dialect == "gqa":
        last = graph.constant(np.array(-1, np.int64), name="/model/constants/INT64/-1")
        pruned = graph.node("Gather", state, last, name="/lm_head/prune/Gather", axis=1)
        state = graph.node("Unsqueeze", pruned, ONE, name="/lm_head/prune/Unsqueeze")
    narrow = shape.logits_type != shape.element_type
    output = None if narrow else "logits"
    raw = _project(graph, "/lm_head", state, shape.hidden, shape.vocabulary_size, gain=HEAD_GAIN, output=output)
    if narrow:
        graph.node("Cast", raw, name="/lm_head/Cast", output="logits", to=shape.logits_type)


def _project(
    graph: Drawing, path: str, source: str, inputs: int, outputs: int, *, gain: float = 1.0, output: str | None = None
) -> str:
    name = f"{path}/MatMul"
    weight = graph.random(inputs, outputs, scale=gain * inputs**-0.5, name=_weight_name(name))
    return graph.node("MatMul", source, weight, name=name, output=output)


def _weight_name(node: str) -> str:
    return f"{node[1:].replace('/', '.')}.weight"
