"""What the programs are given."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """For a library: a model in onnxruntime-genai's directory format, and what to generate with it, greedily."""

    folder: str
    rows: int
    """Of a batch."""
    prompts: Sequence[Sequence[int]]
    tokens: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """For a server: greedy completions of exactly `tokens`. Either a closed loop of `callers`, or an open one at
    `due_s`."""

    address: str
    """HOST:PORT."""
    model: str
    prompts: Sequence[Sequence[int]]
    tokens: Sequence[int]
    callers: int = 0
    due_s: Sequence[float] = ()
    """When each is sent, in seconds from the start, ascending."""
    warm: Sequence[int] = ()
    """A prompt that is sent before all others, and does not count."""
