"""What is asked of an export."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
"""Of a model and of a version."""


class Precision(StrEnum):
    """How weights are stored. FP16 on a CPU: matrices become fp32 at load, and all is computed in fp32."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"
    INT4 = "int4"


class Dialect(StrEnum):
    """A decoder's attention: GroupQueryAttention over rows, or PagedAttention over blocks."""

    GQA = "gqa"
    PAGED = "paged"


class Device(StrEnum):
    """What a decoder's graph is built for. Other graphs serve both."""

    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One export."""

    source: str
    """A folder, a file, the name of a model on the Hugging Face hub, or MODULE:FUNCTION."""
    out: Path
    """…/NAME/VERSION, which must not be there."""
    kind: str | None = None
    """Of source; None: as it looks."""
    precision: Precision = Precision.FP32
    dialect: Dialect = Dialect.GQA
    device: Device = Device.CPU
    tolerance: float | None = None
    """The largest difference, over the largest value of an output; None: the precision's."""
    samples: Path | None = None
    """Inputs that parity is measured on beside random ones: .npz by the inputs' names, or texts, one a line."""
    task: str | None = None
    labels: Path | None = None
    """Names of the first output's values, one a line."""
    files: Sequence[Path] = ()
    """That belong beside the graph, such as a tokenizer.json: copied under their names."""
    keys: Mapping[str, Any] = field(default_factory=dict)
    """Of model.yaml, beside or instead of what the source says."""
    trust_code: bool = False
    trust_pickle: bool = False
    keep_failed: bool = False
    unchecked: bool = False
    """Publish what can be compared with nothing here, such as PagedAttention without a GPU."""
    environments: Path = Path("~/.cache/millrace/environments")
    """Where TensorFlow is installed apart."""

    @property
    def name(self) -> str:
        return self.out.absolute().parent.name

    @property
    def version(self) -> str:
        return self.out.name

    @property
    def repository(self) -> Path:
        return self.out.absolute().parent.parent


def check(order: Order) -> None:
    """Raises ValueError where nothing could be published under this name, or the tolerance is no bound."""
    for part in (order.name, order.version):
        if not NAME.fullmatch(part):
            raise ValueError(
                f"--out {order.out}: it must end in NAME/VERSION, of letters, digits, '_', '.', '-', at most 64 each"
            )
    if order.out.exists() or order.out.is_symlink():
        raise ValueError(f"--out {order.out}: it is there already; a version is never overwritten, so choose another")
    if order.tolerance is not None and not 0 < order.tolerance < float("inf"):
        raise ValueError(f"--tolerance {order.tolerance}: must be a positive number")
    named = [("--include", path) for path in order.files]
    for option, path in (("--samples", order.samples), ("--labels", order.labels), *named):
        if path is not None and not path.is_file():
            raise ValueError(f"{option} {path}: there is no such file")
    if order.dialect is Dialect.PAGED and (order.device, order.precision) != (Device.CUDA, Precision.FP16):
        raise ValueError(
            "--dialect paged: PagedAttention is for a GPU and 16-bit floats: --device cuda --precision fp16"
        )


def check_precision(order: Order, *possible: Precision) -> None:
    """Raises ValueError where the precision is none of these."""
    if order.precision not in possible:
        raise ValueError(
            f"--precision {order.precision}: such a model is exported as {' or '.join(possible)}; "
            "`millrace optimize` makes more of it then"
        )
