"""What every source answers, and what every source is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from millrace.exporting.order import Order
from millrace.exporting.parity import Parity
from millrace.exporting.stages import Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What an export will take, known before it begins."""

    disk_bytes: int
    memory_bytes: int
    unchecked: str = ""
    """Why the graph cannot be compared with its original here; empty: it can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A graph in the version's folder, with the files beside it."""

    parity: Parity
    task: str
    engine: str = "batch"
    graph: str = "model.onnx"
    """What `graphs` of model.yaml names."""
    devices: tuple[str, ...] = ("cpu", "cuda")
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Of model.yaml, beside those above."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Of the original, for the card: what it is, what made it, what it takes and gives."""


class Source(Protocol):
    """A framework's models. Its libraries are loaded by `build`."""

    def plan(self, order: Order) -> Plan:
        """Called first. Raises ValueError where the source is not what it should be, or a package is missing."""

    def build(self, order: Order, folder: Path, stages: Stages) -> Built:
        """Writes graph and files to the empty `folder` and compares them with the original. Raises ValueError."""
