"""A model's folder: the graph, genai_config.json, the tokenizer and model.yaml."""

import json
from pathlib import Path
from typing import Any

import yaml

from tests.models import llama
from tests.models.shapes import Llama
from tests.models.vocabulary import EOS, EOS_ID, tokenizer

GRAPH = "model.onnx"


def write_model(
    repository: Path,
    name: str = "tiny",
    version: str = "1",
    shape: Llama | None = None,
    *,
    chat_template: str | None = None,
    **extra: Any,
) -> Path:
    """Writes NAME/VERSION into a model repository and returns that folder. `chat_template`: a Jinja template, which
    goes into tokenizer_config.json. `extra`: further keys of model.yaml."""
    shape = shape or Llama()
    folder = repository / name / version
    folder.mkdir(parents=True)
    llama.write(shape, folder / GRAPH)
    tokenizer(shape.vocabulary_size).save(str(folder / "tokenizer.json"))
    if chat_template is not None:
        settings = {"bos_token": EOS, "eos_token": EOS, "chat_template": chat_template}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=4))
    (folder / "genai_config.json").write_text(json.dumps(_genai_config(shape), indent=4))
    (folder / "model.yaml").write_text(yaml.safe_dump(_model_file(shape, name) | extra, sort_keys=False))
    return folder


def _model_file(shape: Llama, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "task": "text-generation",
        "engine": "generation",
        "description": "Random weights, for tests.",
        "licence": "Apache-2.0",
        "graphs": {shape.device: {"path": ".", "precision": shape.stored_precision}},
        "slots": shape.slots,
        "context_length": shape.context_length,
        "prefill_chunk_tokens": shape.prefill_chunk_tokens,
        "step_tokens": shape.step_tokens,
        "defaults": {"temperature": 0.8, "top_p": 0.95, "max_tokens": 16},
    }


def _genai_config(shape: Llama) -> dict[str, Any]:
    model = {
        "context_length": shape.graph_context_length,
        "decoder": _decoder(shape),
        "eos_token_id": EOS_ID,
        "pad_token_id": EOS_ID,
        "type": "llama",
        "vocab_size": shape.vocabulary_size,
    }
    bos = {} if shape.bos_token_id is None else {"bos_token_id": shape.bos_token_id}
    search = {"max_length": shape.graph_context_length, "past_present_share_buffer": True}
    config: dict[str, Any] = {"model": bos | model, "search": search}
    if shape.dialect == "paged":
        batching = {"block_size": shape.block_size, "max_batch_size": shape.slots, "gpu_utilization_factor": 0.6}
        config["engine"] = {"dynamic_batching": batching}
    return config


def _decoder(shape: Llama) -> dict[str, Any]:
    providers = [{"cuda": {"enable_cuda_graph": "0"}}] if shape.device == "cuda" else []
    decoder: dict[str, Any] = {
        "session_options": {"log_id": "onnxruntime-genai", "provider_options": providers},
        "filename": GRAPH,
        "head_size": shape.head_size,
        "hidden_size": shape.hidden,
        "inputs": {name: name for name in llama.plain_inputs(shape)}
        | {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
        "outputs": {
            "logits": "logits",
            "present_key_names": "present.%d.key",
            "present_value_names": "present.%d.value",
        },
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
    }
    if shape.dialect == "paged":
        decoder["state_groups"] = [{"kind": "paged_kv", "layer_ids": list(range(shape.layers))}]
    return decoder
