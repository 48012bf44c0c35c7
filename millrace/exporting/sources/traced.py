"""What PyTorch is to trace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """What is traced: a module or an ExportedProgram, with inputs by name, in their order."""

    module: Any
    inputs: Mapping[str, Any]
    shapes: Any = None
    """torch.export's dynamic shapes, by input; None: those of a program, or the batch alone."""
