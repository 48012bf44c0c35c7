"""A small model of each family that is served."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.models import EOS_ID

CONTEXT_LENGTH = 128
WINDOW = 16
"""Positions that a layer with a sliding window sees: fewer than the prompts have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`config`: the name of transformers' class, to which `fields` go beside those that all have."""

    config: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    exporter: Literal["genai", "mobius"] = "genai"
    options: tuple[str, ...] = ()
    """KEY=VALUE for the exporter."""
    device: Literal["cpu", "cuda"] = "cpu"
    precision: str = "fp32"

    def settings(self) -> dict[str, Any]:
        return _GPT2 if self.exporter == "mobius" else _SHAPE | dict(self.fields)


_TOKENS = {"vocab_size": 320, "bos_token_id": EOS_ID, "eos_token_id": EOS_ID, "pad_token_id": EOS_ID}
_SHAPE = _TOKENS | {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT_LENGTH,
    "tie_word_embeddings": False,
}
_GPT2 = _TOKENS | {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": CONTEXT_LENGTH}
_WINDOWS = ["sliding_attention", "full_attention"] * 2
_GEMMA = {"head_dim": 16, "tie_word_embeddings": True}
_GEMMA2 = _GEMMA | {"query_pre_attn_scalar": 24, "sliding_window": WINDOW, "layer_types": _WINDOWS}
FAMILIES = {
    "llama": Family(config="LlamaConfig"),
    "qwen2": Family(config="Qwen2Config"),
    "qwen2 with windows": Family(
        config="Qwen2Config",
        fields={"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": _WINDOWS},
    ),
    "qwen3": Family(config="Qwen3Config", fields={"head_dim": 32}, options=("fuse_qk_norm_gqa=false",)),
    "mistral": Family(config="MistralConfig", fields={"sliding_window": None}),
    "mistral with a window": Family(
        config="MistralConfig", fields={"sliding_window": WINDOW, "layer_types": ["sliding_attention"] * 4}
    ),
    "phi3": Family(
        config="Phi3Config", fields={"original_max_position_embeddings": CONTEXT_LENGTH, "sliding_window": None}
    ),
    "gemma": Family(config="GemmaConfig", fields=_GEMMA),
    "gemma2": Family(config="Gemma2Config", fields=_GEMMA2),
    "gpt2": Family(config="GPT2Config", exporter="mobius"),
}
