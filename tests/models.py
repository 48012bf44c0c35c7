"""A tiny Llama with random weights, written as onnxruntime-genai's model builder writes one, in well under a second.

It is a real model to everything that serves it: a GroupQueryAttention graph with rotary positions and an attention
mask, genai_config.json, a byte-level tokenizer.json that has half characters as tokens, and model.yaml.
"""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|endoftext|>"
EOS_ID = 0
TRAINING_TEXT = ["the stop, the end; a bélier — naïve 数据 🙂🙂 and the rest of the text is the same as the start"] * 4


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyLlama:
    """Its shape, and what model.yaml says of it."""

    layers: int = 2
    hidden: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    intermediate: int = 64
    vocabulary_size: int = 320
    graph_context_length: int = 128
    seed: int = 0
    nan_token_id: int | None = None
    """A token after which the logits are not numbers."""
    bos_token_id: int | None = EOS_ID
    external_data: bool = True
    device: str = "cpu"
    """"cuda" writes 16-bit floats, the only ones that GroupQueryAttention takes there."""
    slots: int = 4
    context_length: int = 128
    prefill_chunk_tokens: int = 16
    step_tokens: int = 16

    @property
    def element_type(self) -> int:
        return TensorProto.FLOAT16 if self.device == "cuda" else TensorProto.FLOAT


def write_model(
    repository: Path, name: str = "tiny", version: str = "1", shape: TinyLlama | None = None, **extra: Any
) -> Path:
    """Writes NAME/VERSION into a model repository and returns that folder. `extra`: further keys of model.yaml."""
    shape = shape or TinyLlama()
    folder = repository / name / version
    folder.mkdir(parents=True)
    _save(_model(shape), folder, external_data=shape.external_data)
    tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "genai_config.json").write_text(json.dumps(_genai_config(shape), indent=4))
    (folder / "model.yaml").write_text(yaml.safe_dump(_model_file(shape, name) | extra, sort_keys=False))
    return folder


@functools.cache
def tokenizer() -> Tokenizer:
    """The end of text, the 256 bytes, and 63 merges, some of which end inside a character."""
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    built.train_from_iterator(TRAINING_TEXT, trainer)
    return built


def _model_file(shape: TinyLlama, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "task": "text-generation",
        "engine": "generation",
        "description": "Random weights, for tests.",
        "licence": "Apache-2.0",
        "graphs": {shape.device: {"path": ".", "precision": "fp16" if shape.device == "cuda" else "fp32"}},
        "slots": shape.slots,
        "context_length": shape.context_length,
        "prefill_chunk_tokens": shape.prefill_chunk_tokens,
        "step_tokens": shape.step_tokens,
        "defaults": {"temperature": 0.8, "top_p": 0.95, "max_tokens": 16},
    }


def _genai_config(shape: TinyLlama) -> dict[str, Any]:
    decoder = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": []},
        "filename": "model.onnx",
        "head_size": shape.head_size,
        "hidden_size": shape.hidden,
        "inputs": {
            "input_ids": "input_ids",
            "attention_mask": "attention_mask",
            "past_key_names": "past_key_values.%d.key",
            "past_value_names": "past_key_values.%d.value",
        },
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
    }
    model = {
        "context_length": shape.graph_context_length,
        "decoder": decoder,
        "eos_token_id": EOS_ID,
        "pad_token_id": EOS_ID,
        "type": "llama",
        "vocab_size": shape.vocabulary_size,
    }
    bos = {} if shape.bos_token_id is None else {"bos_token_id": shape.bos_token_id}
    return {"model": bos | model, "search": {"max_length": shape.graph_context_length}}


class _Graph:
    """Nodes and weights under construction."""

    def __init__(self, shape: TinyLlama) -> None:
        self.shape = shape
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(shape.seed)

    def node(self, operator: str, inputs: list[str], output: str, more: tuple[str, ...] = (), **attributes: Any) -> str:
        domain = "com.microsoft" if operator == "GroupQueryAttention" else ""
        outputs = [output, *more]
        self.nodes.append(helper.make_node(operator, inputs, outputs, f"/{output}", domain=domain, **attributes))
        return output

    def weight(self, name: str, values: npt.NDArray[Any]) -> str:
        """Stores whole numbers as they are, the rest in the model's precision."""
        real = helper.tensor_dtype_to_np_dtype(self.shape.element_type)
        stored = values.astype(real) if values.dtype.kind == "f" else values
        self.weights.append(numpy_helper.from_array(stored, name))
        return name

    def random(self, name: str, *dims: int, scale: float = 1.0) -> str:
        values = self._random.standard_normal(dims) * scale / np.sqrt(dims[0])
        return self.weight(name, values)

    def linear(self, source: str, name: str, inputs: int, outputs: int, scale: float = 1.0) -> str:
        weight = self.random(f"{name}.MatMul.weight", inputs, outputs, scale=scale)
        return self.node("MatMul", [source, weight], f"{name}/output_0")

    def norm(self, source: str, name: str) -> str:
        weight = self.weight(f"{name}.weight", np.ones(self.shape.hidden))
        return self.node("SimplifiedLayerNormalization", [source, weight], f"{name}/output_0", axis=-1, epsilon=1e-6)


def _model(shape: TinyLlama) -> onnx.ModelProto:
    graph = _Graph(shape)
    lengths, total = _mask_subgraph(graph)
    _rotary(graph)
    embeddings = np.random.default_rng(shape.seed).standard_normal((shape.vocabulary_size, shape.hidden))
    if shape.nan_token_id is not None:
        embeddings[shape.nan_token_id] = np.nan
    table = graph.weight("model.embed_tokens.weight", embeddings)
    state = graph.node("Gather", [table, "input_ids"], "embedded")
    for layer in range(shape.layers):
        state = _layer(graph, layer, state, lengths, total)
    state = graph.norm(state, "model.final_norm")
    head = graph.random("lm_head.MatMul.weight", shape.hidden, shape.vocabulary_size, scale=3.0)
    graph.node("MatMul", [state, head], "logits")
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    inputs, outputs = _ports(shape)
    proto = helper.make_graph(graph.nodes, "main_graph", inputs, outputs, graph.weights)
    return helper.make_model(proto, opset_imports=opsets, ir_version=10)


def _mask_subgraph(graph: _Graph) -> tuple[str, str]:
    """The builder's `attn_mask_reformat`: row sums minus one, and the mask's width, as int32."""
    one = graph.weight("/model/constants/INT64/[1]", np.array([1], np.int64))
    index = graph.weight("/model/constants/INT64/1", np.array(1, np.int64))
    sums = graph.node("ReduceSum", ["attention_mask", one], "mask/sum", keepdims=0)
    lengths = graph.node("Cast", [graph.node("Sub", [sums, one], "mask/sub")], "mask/lengths", to=TensorProto.INT32)
    width = graph.node("Gather", [graph.node("Shape", ["attention_mask"], "mask/shape"), index], "mask/width")
    return lengths, graph.node("Cast", [width], "mask/total", to=TensorProto.INT32)


def _rotary(graph: _Graph) -> None:
    half = graph.shape.head_size // 2
    frequencies = 10_000.0 ** (-np.arange(half) / half)
    angles = np.outer(np.arange(graph.shape.graph_context_length), frequencies)
    graph.weight("cos_cache", np.cos(angles))
    graph.weight("sin_cache", np.sin(angles))


def _layer(graph: _Graph, layer: int, state: str, lengths: str, total: str) -> str:
    shape, name = graph.shape, f"model.layers.{layer}"
    normed = graph.norm(state, f"{name}.input_layernorm")
    query = graph.linear(normed, f"{name}.attn.q_proj", shape.hidden, shape.heads * shape.head_size, scale=2.0)
    key = graph.linear(normed, f"{name}.attn.k_proj", shape.hidden, shape.kv_heads * shape.head_size, scale=2.0)
    value = graph.linear(normed, f"{name}.attn.v_proj", shape.hidden, shape.kv_heads * shape.head_size)
    past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
    attended = graph.node(
        "GroupQueryAttention",
        [query, key, value, *past, lengths, total, "cos_cache", "sin_cache"],
        f"{name}.attn/output_0",
        (f"present.{layer}.key", f"present.{layer}.value"),
        num_heads=shape.heads,
        kv_num_heads=shape.kv_heads,
        do_rotary=1,
    )
    projected = graph.linear(attended, f"{name}.attn.o_proj", shape.heads * shape.head_size, shape.hidden)
    state = graph.node("Add", [state, projected], f"{name}.attn/residual")
    return graph.node("Add", [state, _mlp(graph, name, state)], f"{name}/residual")


def _mlp(graph: _Graph, name: str, state: str) -> str:
    shape = graph.shape
    normed = graph.norm(state, f"{name}.post_attention_layernorm")
    gate = graph.linear(normed, f"{name}.mlp.gate_proj", shape.hidden, shape.intermediate)
    up = graph.linear(normed, f"{name}.mlp.up_proj", shape.hidden, shape.intermediate)
    silu = graph.node("Mul", [gate, graph.node("Sigmoid", [gate], f"{name}.mlp/sigmoid")], f"{name}.mlp/silu")
    gated = graph.node("Mul", [silu, up], f"{name}.mlp/gated")
    return graph.linear(gated, f"{name}.mlp.down_proj", shape.intermediate, shape.hidden)


def _ports(shape: TinyLlama) -> tuple[list[onnx.ValueInfoProto], list[onnx.ValueInfoProto]]:
    ids, real = TensorProto.INT64, shape.element_type
    inputs = [helper.make_tensor_value_info("input_ids", ids, ["batch_size", "sequence_length"])]
    inputs += [helper.make_tensor_value_info("attention_mask", ids, ["batch_size", "total_sequence_length"])]
    outputs = [helper.make_tensor_value_info("logits", real, ["batch_size", "sequence_length", shape.vocabulary_size])]
    for layer in range(shape.layers):
        for kind in ("key", "value"):
            inputs.append(_cache_port(shape, f"past_key_values.{layer}.{kind}", "past_sequence_length"))
            outputs.append(_cache_port(shape, f"present.{layer}.{kind}", "total_sequence_length"))
    return inputs, outputs


def _cache_port(shape: TinyLlama, name: str, length: str) -> onnx.ValueInfoProto:
    dims: list[str | int | None] = ["batch_size", shape.kv_heads, length, shape.head_size]
    return helper.make_tensor_value_info(name, shape.element_type, dims)


def _save(model: onnx.ModelProto, folder: Path, *, external_data: bool) -> None:
    if external_data:
        onnx.save(
            model,
            folder / "model.onnx",
            save_as_external_data=True,
            location="model.onnx.data",
            size_threshold=64,
        )
    else:
        onnx.save(model, folder / "model.onnx")
