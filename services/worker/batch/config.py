"""How a model's requests are batched: the part `batching` of model.yaml → `BatchConfig`."""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from millrace.engine import EngineContext


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchConfig:
    """A graph and how it is served."""

    graph: Path
    device: str
    threads: int
    """Of each session; 0 lets the runtime choose."""
    sessions: int
    max_rows: int
    preferred_rows: tuple[int, ...]
    """Numbers of rows that a run had better have, rising; none: any."""
    delay_s: float
    """How long a batch that is not full waits for more; 0: it runs as soon as the device is free."""
    buckets: Mapping[str, tuple[int, ...] | int]
    """By the graph's name of a dimension: the sizes, or the multiple, to which it is padded."""
    padding: Mapping[str, Any]
    """What an input is padded with; 0 (False, the empty text) where nothing is said."""

    def padded(self, symbol: str, size: int) -> int:
        """The size at which a dimension runs. One that is larger than every bucket runs as it is."""
        sizes = self.buckets.get(symbol)
        if sizes is None:
            return size
        if isinstance(sizes, int):
            return -(-size // sizes) * sizes
        place = bisect_left(sizes, size)
        return sizes[place] if place < len(sizes) else size


def _preferred(rows: Sequence[int], max_rows: int) -> tuple[int, ...]:
    if max(rows, default=0) > max_rows:
        raise ValueError(f"batching.preferred_rows: {max(rows)} is more than max_rows, {max_rows}")
    return tuple(sorted(set(rows)))


def read(context: EngineContext, cores: int) -> BatchConfig:
    """Raises ValueError where model.yaml names no graph for the device."""
    graphs, batching = context.config["graphs"], context.config["batching"]
    if context.device not in graphs:
        known = ", ".join(sorted(graphs)) or "none"
        raise ValueError(f"model.yaml names no graph for {context.device}: it has {known}")
    sessions = batching["sessions"]
    return BatchConfig(
        graph=context.folder / graphs[context.device]["path"],
        device=context.device,
        threads=max((context.threads or cores) // sessions, 1) if sessions > 1 else context.threads,
        sessions=sessions,
        max_rows=batching["max_rows"],
        preferred_rows=_preferred(batching["preferred_rows"], batching["max_rows"]),
        delay_s=batching["delay_ms"] / 1000,
        buckets={
            name: sizes if isinstance(sizes, int) else tuple(sorted(sizes))
            for name, sizes in batching["buckets"].items()
        },
        padding=batching["padding"],
    )
