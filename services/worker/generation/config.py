"""What the engine needs to know of a model: genai_config.json and model.yaml → `ModelConfig`."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.engine import EngineContext


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A decoder graph in onnxruntime-genai's directory format. Port patterns hold one %d, the layer."""

    graph: Path
    tokenizer: Path
    layers: int
    kv_heads: int
    head_size: int
    vocabulary_size: int
    context_length: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    input_ids: str
    past_key: str
    past_value: str
    logits: str
    present_key: str
    present_value: str

    def caches(self) -> list[tuple[str, str]]:
        """The graph's (past, present) ports, key and value of each layer in turn."""
        patterns = ((self.past_key, self.present_key), (self.past_value, self.present_value))
        return [(past % layer, present % layer) for layer in range(self.layers) for past, present in patterns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request gets for a field that it leaves unset. `max_tokens` None: up to the context's end."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder and how it is served."""

    decoder: DecoderConfig
    slots: int
    context_length: int
    prefill_chunk_tokens: int
    step_tokens: int
    defaults: Defaults


def read(context: EngineContext) -> ModelConfig:
    """Raises ValueError where the files lack something or contradict each other."""
    graphs = context.config["graphs"]
    if context.device not in graphs:
        raise ValueError(
            f"model.yaml names no graph for {context.device}: it has {', '.join(sorted(graphs)) or 'none'}"
        )
    decoder = read_decoder(context.folder / graphs[context.device]["path"])
    length = context.config["context_length"] or decoder.context_length
    if length > decoder.context_length:
        raise ValueError(f"context_length {length} is more than the graph's {decoder.context_length}")
    return ModelConfig(
        decoder=decoder,
        slots=context.config["slots"],
        context_length=length,
        prefill_chunk_tokens=context.config["prefill_chunk_tokens"],
        step_tokens=context.config["step_tokens"],
        defaults=Defaults(**{k: v for k, v in context.config["defaults"].items() if v is not None}),
    )


def read_decoder(folder: Path) -> DecoderConfig:
    """Reads genai_config.json, as onnxruntime-genai's model builder 0.18 writes it."""
    try:
        model = json.loads((folder / "genai_config.json").read_bytes())["model"]
        return _decoder(folder, model, model["decoder"])
    except KeyError as missing:
        raise ValueError(f"genai_config.json lacks {missing}") from None


def _decoder(folder: Path, model: dict[str, Any], decoder: dict[str, Any]) -> DecoderConfig:
    inputs, outputs = decoder["inputs"], decoder["outputs"]
    eos = model.get("eos_token_id", [])
    return DecoderConfig(
        graph=folder / decoder["filename"],
        tokenizer=folder / "tokenizer.json",
        layers=decoder["num_hidden_layers"],
        kv_heads=decoder["num_key_value_heads"],
        head_size=decoder["head_size"],
        vocabulary_size=model["vocab_size"],
        context_length=model["context_length"],
        bos_token_id=model.get("bos_token_id"),
        eos_token_ids=tuple(eos) if isinstance(eos, list) else (eos,),
        input_ids=inputs["input_ids"],
        past_key=inputs["past_key_names"],
        past_value=inputs["past_value_names"],
        logits=outputs["logits"],
        present_key=outputs["present_key_names"],
        present_value=outputs["present_value_names"],
    )
