"""One example: what the model is asked, and what would be right."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Medium = Literal["text", "image", "audio"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    id: str
    text: str = ""
    """To label, to embed, to score; or the prompt to go on from."""
    file: Path | None = None
    """An image or a sound."""
    medium: Medium = "text"
    arrays: Mapping[str, Array] = field(default_factory=dict)
    """By the model's inputs, each without the rows' dimension."""
    truth: str = ""
    """The label, the reference's text; empty where there is none."""
    relevant: Mapping[str, float] | None = None
    """Of a query: the ids of documents, and how relevant each is, above 0. None: no query."""
