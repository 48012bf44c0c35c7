"""The least that a step has to read and to compute, and what a card could do in the same time.

A decode step reads each weight once and the keys and values of every position that a row holds; a prefill multiplies
each token with each weight. Nothing else is counted, so a share of the roofline is never flattered.
"""

from dataclasses import dataclass

from onnx import helper

from tests.models import Llama


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """The vendor's figures: of memory, and of products of 16-bit matrices that are not sparse."""

    bytes_s: float
    flops_s: float


CARDS = {
    "B200": Card(bytes_s=8.0e12, flops_s=2250e12),
    "H200": Card(bytes_s=4.8e12, flops_s=989e12),
    "H100 PCIe": Card(bytes_s=2.0e12, flops_s=756e12),
    "H100 NVL": Card(bytes_s=3.9e12, flops_s=835e12),
    "H100": Card(bytes_s=3.35e12, flops_s=989e12),
    "A100-SXM4-80GB": Card(bytes_s=2.039e12, flops_s=312e12),
    "A100 80GB PCIe": Card(bytes_s=1.935e12, flops_s=312e12),
    "A100": Card(bytes_s=1.555e12, flops_s=312e12),
    "L40S": Card(bytes_s=0.864e12, flops_s=362e12),
    "L4": Card(bytes_s=0.3e12, flops_s=121e12),
    "A10": Card(bytes_s=0.6e12, flops_s=125e12),
    "T4": Card(bytes_s=0.32e12, flops_s=65e12),
    "RTX 4090": Card(bytes_s=1.008e12, flops_s=165e12),
    "RTX 3090": Card(bytes_s=0.936e12, flops_s=71e12),
}
"""By a part of the name that the driver gives; where several fit, the longest is meant."""


def find_card(name: str) -> Card | None:
    """The card of that name, as the driver says it: "NVIDIA H100 80GB HBM3"."""
    words = f" {name} "
    fitting = [part for part in CARDS if f" {part} " in words or f" {part}-" in words]
    return CARDS[max(fitting, key=len)] if fitting else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one run cannot do without."""

    tokens: int
    read_bytes: float
    flops: float

    def bandwidth_share(self, seconds: float, card: Card) -> float:
        """Of the card's bandwidth, used by a run that took so long."""
        return self.read_bytes / seconds / card.bytes_s

    def compute_share(self, seconds: float, card: Card) -> float:
        return self.flops / seconds / card.flops_s


def decode_work(shape: Llama, rows: int, length: int) -> Work:
    """One token for each of the rows, which hold `length` positions each."""
    item = _item_bytes(shape.element_type)
    read = _layer_weights(shape) + _head_weights(shape) + rows * shape.hidden
    attended = rows * length
    flops = 2 * rows * (_layer_weights(shape) + _head_weights(shape)) + attended * _attention_flops(shape)
    return Work(tokens=rows, read_bytes=read * item + attended * position_bytes(shape), flops=flops)


def prefill_work(shape: Llama, tokens: int) -> Work:
    """A prompt's first `tokens` tokens at once; the head sees the last one alone."""
    item = _item_bytes(shape.element_type)
    read = _layer_weights(shape) + _head_weights(shape) + tokens * shape.hidden
    pairs = tokens * (tokens + 1) / 2
    flops = 2 * tokens * _layer_weights(shape) + 2 * _head_weights(shape) + pairs * _attention_flops(shape)
    return Work(tokens=tokens, read_bytes=read * item, flops=flops)


def position_bytes(shape: Llama) -> int:
    """Keys and values of one position in all layers."""
    return 2 * shape.layers * shape.kv_heads * shape.head_size * _item_bytes(shape.kv_element_type)


def weight_bytes(shape: Llama) -> int:
    """Of the whole model, the embeddings included."""
    embeddings = shape.vocabulary_size * shape.hidden
    return (embeddings + _layer_weights(shape) + _head_weights(shape)) * _item_bytes(shape.element_type)


def _layer_weights(shape: Llama) -> int:
    attention = (2 * shape.heads + 2 * shape.kv_heads) * shape.head_size * shape.hidden
    return shape.layers * (attention + 3 * shape.hidden * shape.intermediate + 2 * shape.hidden) + shape.hidden


def _head_weights(shape: Llama) -> int:
    return shape.hidden * shape.vocabulary_size


def _attention_flops(shape: Llama) -> int:
    """Of one token's look at one position, in all layers: its product with the key, and the value's weighted sum."""
    return 4 * shape.layers * shape.heads * shape.head_size


def _item_bytes(element_type: int) -> int:
    return helper.tensor_dtype_to_np_dtype(element_type).itemsize
