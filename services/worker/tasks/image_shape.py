"""The shape of a graph's image: which of its dimensions are what, and how large."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from services.worker.batch.graph import Array, Port
from services.worker.tasks import takes_one

Layout = Literal["nchw", "nhwc"]
ChannelNames = Literal["grey", "rgb", "bgr"]
CHANNELS = {"grey": 1, "rgb": 3, "bgr": 3}
DATATYPES = ("FP32", "FP16", "UINT8")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What an image is brought to."""

    size: tuple[int, int]
    """Height and width."""
    channels: int
    layout: Layout | None
    """None: [rows, height, width]."""

    def arrange(self, values: Array) -> Array:
        """[height, width, channels] → one row as the graph has it."""
        if self.layout is None:
            return values[None, ..., 0]
        return np.ascontiguousarray(values.transpose(2, 0, 1) if self.layout == "nchw" else values)[None]


def read_shape(
    port: Port, size: int | Sequence[int] | None, channels: ChannelNames | None, layout: Layout | None
) -> Shape:
    """What the port says, and where it does not, what model.yaml does. Raises ValueError, naming the key."""
    if port.datatype not in DATATYPES or len(port.dims) not in (3, 4) or not takes_one(port):
        known = f"{', '.join(DATATYPES)} of images, any number or one"
        raise ValueError(f"image: {port.name} is {port.datatype} {list(port.dims)}, not {known}")
    layout = _layout(port, layout)
    height, width = port.dims[1:3] if layout != "nchw" else port.dims[2:4]
    depth: int | str = 1 if layout is None else port.dims[1 if layout == "nchw" else 3]
    count = CHANNELS[channels or ("grey" if depth == 1 else "rgb")]
    if depth not in (1, 3) and not isinstance(depth, str):
        raise ValueError(f"image: {port.name} has {depth} channels: 1 and 3 are known")
    if isinstance(depth, int) and depth != count:
        raise ValueError(f"image.channels: {port.name} has {depth}")
    given: Sequence[int | str] = (size, size) if isinstance(size, int) else size or (height, width)
    for found, wanted in zip(given, (height, width), strict=True):
        if isinstance(found, str):
            raise ValueError(f"image.size: must be given, as {port.name} takes any")
        if isinstance(wanted, int) and found != wanted:
            raise ValueError(f"image.size: {port.name} takes {height} × {width}")
    return Shape(size=(int(given[0]), int(given[1])), channels=count, layout=layout)


def _layout(port: Port, given: Layout | None) -> Layout | None:
    """Raises ValueError."""
    if len(port.dims) == 3:
        return None
    if given is not None:
        return given
    first, last = (port.dims[axis] in (1, 3) for axis in (1, 3))
    if first == last:
        raise ValueError(f"image.layout: must be given, as the shape {list(port.dims)} of {port.name} does not tell")
    return "nchw" if first else "nhwc"
