"""The weights of an ONNX Llama as a Hugging Face checkpoint: config.json and model.safetensors, without torch.

The format of the latter: the length of a JSON header (8 bytes, little-endian), the header, {name: {dtype, shape,
data_offsets}}, then the tensors' bytes one behind the other. A linear weight is [inputs, outputs] in the graph and
[outputs, inputs] there.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

Array = npt.NDArray[Any]
TENSORS, CONFIG, TOKENIZER_CONFIG, TOKENIZER = (
    "model.safetensors",
    "config.json",
    "tokenizer_config.json",
    "tokenizer.json",
)
LENGTH_BYTES = 8
EPSILON, ROPE_THETA = 1e-6, 10_000.0
EMBEDDINGS, LAST_NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
NORM = re.compile(r"model\.layers\.\d+\.(input_layernorm|post_attention_layernorm)\.weight")
LINEAR = re.compile(r"(model\.layers\.\d+)\.(attn|mlp)\.([a-z]+_proj)\.MatMul\.weight")
BLOCKS = {"attn": "self_attn", "mlp": "mlp"}
LAYER_TENSORS, FURTHER_TENSORS = 9, 3


def write(model: Path, folder: Path) -> None:
    """Writes the checkpoint of a model in onnxruntime-genai's directory format, without its tokenizer.json. Raises
    ValueError where the graph's weights are not those of a Llama whose projections are apart."""
    genai = json.loads((model / "genai_config.json").read_text())["model"]
    graph = onnx.load(model / genai["decoder"]["filename"]).graph
    tensors = dict(_tensors(graph))
    if len(tensors) != LAYER_TENSORS * genai["decoder"]["num_hidden_layers"] + FURTHER_TENSORS:
        raise ValueError(f"{model}: {len(tensors)} of a Llama's weights are there under their usual names, and not all")
    _check(graph)
    save(tensors, folder / TENSORS)
    intermediate = len(tensors["model.layers.0.mlp.gate_proj.weight"])
    (folder / CONFIG).write_text(json.dumps(_config(genai, intermediate), indent=1))
    (folder / TOKENIZER_CONFIG).write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))


def save(tensors: Mapping[str, Array], path: Path) -> None:
    """Writes 32-bit floats in the safetensors format."""
    header, at = dict[str, Any](), 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    packed = json.dumps(header).encode()
    padded = packed.ljust(-(-len(packed) // LENGTH_BYTES) * LENGTH_BYTES)
    with path.open("wb") as file:
        file.write(len(padded).to_bytes(LENGTH_BYTES, "little") + padded)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor, np.float32).data)


def _tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, Array]]:
    for initializer in graph.initializer:
        if name := _name(initializer.name):
            values = numpy_helper.to_array(initializer)
            yield name, values.T if "MatMul" in initializer.name else values


def _name(name: str) -> str | None:
    """What the weight is called in a checkpoint; None for the graph's constants."""
    if name == EMBEDDINGS or NORM.fullmatch(name):
        return name
    if name == "lm_head.MatMul.weight":
        return HEAD
    if name.endswith("final_norm_layernorm.weight"):
        return LAST_NORM
    if found := LINEAR.fullmatch(name):
        layer, block, projection = found.groups()
        return f"{layer}.{BLOCKS[block]}.{projection}.weight"
    return None


def _check(graph: onnx.GraphProto) -> None:
    """Raises ValueError where norms or rotations are other than the configuration will say."""
    norm = next(node for node in graph.node if "LayerNorm" in node.op_type)
    (epsilon,) = (attribute.f for attribute in norm.attribute if attribute.name == "epsilon")
    cosines = numpy_helper.to_array(next(tensor for tensor in graph.initializer if tensor.name == "cos_cache"))[1]
    expected = np.cos(ROPE_THETA ** (-np.arange(len(cosines)) / len(cosines)))
    if not np.isclose(epsilon, EPSILON) or not np.allclose(cosines, expected, atol=1e-5):
        raise ValueError(f"the graph has other norms than with epsilon {EPSILON}, or rotations than of {ROPE_THETA}")


def _config(genai: dict[str, Any], intermediate: int) -> dict[str, Any]:
    decoder = genai["decoder"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": "float32",
        "vocab_size": genai["vocab_size"],
        "hidden_size": decoder["hidden_size"],
        "intermediate_size": intermediate,
        "num_hidden_layers": decoder["num_hidden_layers"],
        "num_attention_heads": decoder["num_attention_heads"],
        "num_key_value_heads": decoder["num_key_value_heads"],
        "head_dim": decoder["head_size"],
        "max_position_embeddings": genai["context_length"],
        "rms_norm_eps": EPSILON,
        "rope_theta": ROPE_THETA,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
        "bos_token_id": genai.get("bos_token_id"),
        "eos_token_id": genai["eos_token_id"],
    }
