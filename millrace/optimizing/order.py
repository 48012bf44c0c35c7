"""What is asked of an optimisation."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal

from millrace.exporting.order import NAME

Device = Literal["cpu", "cuda"]


class Method(StrEnum):
    """A way to make another graph of a model's."""

    GRAPH = "graph"
    """Nodes fused and constants folded ahead of time."""
    FP16 = "fp16"
    """16-bit floats; of a decoder its weights alone."""
    INT8 = "int8"
    """Weights and activations of products in 8 bits; an activation's range is found as it runs."""
    INT8_STATIC = "int8-static"
    """The same, convolutions too; ranges come from calibration data."""
    INT8_BLOCK = "int8-block"
    """Each 32 weights of a product share a scale; activations by block as well."""
    INT4 = "int4"
    """The same in 4 bits, the last product in 8."""


class Prefer(StrEnum):
    """What the best candidate is best in."""

    SPEED = "speed"
    """Rows (of a decoder, tokens) a second at the best batch."""
    LATENCY = "latency"
    """The median of one row."""
    SIZE = "size"
    """The graph on the disk."""
    MEMORY = "memory"
    """The peak of a process that loads and runs it."""


class Calibration(StrEnum):
    """How int8-static finds the ranges of activations."""

    MINMAX = "minmax"
    ENTROPY = "entropy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One optimisation."""

    folder: Path
    """…/NAME/VERSION, which stays as it is."""
    methods: Sequence[Method] = tuple(Method)
    data: Path | None = None
    """What the task's metric is measured on: .npz by the inputs' names, lines of JSON or CSV, or text; of images,
    sounds and vectors a data set of `millrace evaluate`."""
    calibration: Path | None = None
    """What the graph takes, of the same kinds; labels are not needed."""
    calibrate: Calibration = Calibration.MINMAX
    max_loss: float = 0.005
    prefer: Prefer = Prefer.SPEED
    out: str | None = None
    """The new version's name; None: the next number."""
    device: Device = "cpu"
    rounds: int = 5
    seconds: float = 2.0
    """That each candidate is measured in each round."""
    threads: int = 0
    """0: as many as there are cores."""

    @property
    def model(self) -> Path:
        return self.folder.absolute().parent

    @property
    def version(self) -> str:
        """The new one's name."""
        return self.out if self.out is not None else next_version(self.model)

    @property
    def target(self) -> Path:
        return self.model / self.version


def next_version(model: Path) -> str:
    """One more than the highest number among a model's versions."""
    numbers = [int(path.name) for path in model.iterdir() if path.is_dir() and path.name.isdecimal()]
    return str(max(numbers, default=0) + 1)


def check(order: Order) -> None:
    """Raises ValueError where nothing could come of it."""
    if not order.folder.is_dir():
        raise ValueError(f"{order.folder}: there is no such folder; give a version's, as models/NAME/VERSION")
    if not NAME.fullmatch(order.version):
        raise ValueError(f"--out {order.out}: a version has letters, digits, '_', '.', '-', at most 64 of them")
    if order.target.exists() or order.target.is_symlink():
        raise ValueError(f"--out {order.version}: it is there already; a version is never overwritten")
    if not order.methods:
        raise ValueError(f"--methods: name at least one of {', '.join(Method)}")
    for option, value in (("--max-loss", order.max_loss), ("--seconds", order.seconds)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{option} {value}: must be a number from 0 on")
    if order.data is not None and not order.data.exists():
        raise ValueError(f"--data {order.data}: there is no such file or folder")
    if order.calibration is not None and not order.calibration.is_file():
        raise ValueError(f"--calibration {order.calibration}: there is no such file")
