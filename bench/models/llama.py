"""A Llama of 125 million weights, as onnxruntime-genai's model builder writes one with `prune_lm_head`."""

from dataclasses import replace
from pathlib import Path

from tests.models import Llama, write_model

LLAMA = Llama(
    layers=12,
    hidden=768,
    heads=12,
    kv_heads=4,
    head_size=64,
    intermediate=2048,
    vocabulary_size=32_000,
    graph_context_length=256,
    context_length=256,
    slots=32,
    prefill_chunk_tokens=128,
    step_tokens=128,
)
"""A slot for each caller. A prompt is one chunk, and a step prefills one: bare, that gave 319 tokens/s, and prefilling
all that had room at once gave 330, but makes every first token late."""


def write(repository: Path, name: str = "llama", shape: Llama = LLAMA) -> Path:
    """Writes NAME/1 into a model repository and returns that folder. The head sees the last position alone."""
    return write_model(repository, name, shape=replace(shape, prunes_head=True))
