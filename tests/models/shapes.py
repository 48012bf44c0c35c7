"""The shapes of the models."""

from dataclasses import dataclass
from typing import Literal

from onnx import TensorProto

from tests.models.vocabulary import EOS_ID

Precision = Literal["fp32", "fp16", "bf16"]
ELEMENT_TYPES: dict[Precision, int] = {
    "fp32": TensorProto.FLOAT,
    "fp16": TensorProto.FLOAT16,
    "bf16": TensorProto.BFLOAT16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama:
    """A model's shape, and what model.yaml says of it. Unless told otherwise, a tiny one."""

    layers: int = 2
    hidden: int = 32
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 16
    intermediate: int = 64
    vocabulary_size: int = 320
    graph_context_length: int = 128
    rope_theta: float = 10_000.0
    seed: int = 0
    nan_token_id: int | None = None
    """A token after which the logits are not numbers."""
    bos_token_id: int | None = EOS_ID
    dialect: Literal["gqa", "paged"] = "gqa"
    """GroupQueryAttention over rows of tokens, or PagedAttention over tokens of all sequences in one line. The same
    seed gives the same weights in both."""
    precision: Precision | None = None
    """Of weights, activations and logits (which are fp32 behind bf16). None: the widest that the attention has kernels
    for on `device`."""
    kv_precision: Literal["same", "int8"] = "same"
    """int8: with one scale for the keys and one for the values of a layer."""
    prunes_head: bool = False
    """Whether the GroupQueryAttention graph gives the logits of the last position alone. The paged graph always takes
    `logits_indices`."""
    block_size: int = 256
    """Positions in a block of the paged cache."""
    external_data: bool = True
    device: Literal["cpu", "cuda"] = "cpu"
    slots: int = 4
    context_length: int = 128
    prefill_chunk_tokens: int = 16
    step_tokens: int = 16

    @property
    def stored_precision(self) -> Precision:
        wide = self.device == "cpu" and self.dialect == "gqa"
        return self.precision or ("fp32" if wide else "fp16")

    @property
    def element_type(self) -> int:
        return ELEMENT_TYPES[self.stored_precision]

    @property
    def kv_element_type(self) -> int:
        return TensorProto.INT8 if self.kv_precision == "int8" else self.element_type

    @property
    def logits_type(self) -> int:
        return TensorProto.FLOAT if self.stored_precision == "bf16" else self.element_type


TinyLlama = Llama
"""What a `Llama` is without further words."""
LLAMA_1B = Llama(
    layers=16,
    hidden=2048,
    heads=32,
    kv_heads=8,
    head_size=64,
    intermediate=8192,
    vocabulary_size=128_256,
    graph_context_length=8192,
    rope_theta=500_000.0,
    precision="fp16",
    slots=32,
    context_length=8192,
    prefill_chunk_tokens=512,
    step_tokens=512,
)
"""As Llama-3.2-1B, but with a head that is not the embedding's transpose: 1.50 thousand million weights."""
LLAMA_8B = Llama(
    layers=32,
    hidden=4096,
    heads=32,
    kv_heads=8,
    head_size=128,
    intermediate=14_336,
    vocabulary_size=128_256,
    graph_context_length=8192,
    rope_theta=500_000.0,
    precision="fp16",
    block_size=128,
    slots=32,
    context_length=8192,
    prefill_chunk_tokens=512,
    step_tokens=512,
)
"""As Llama-3.1-8B: 8.03 thousand million weights."""
