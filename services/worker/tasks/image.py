"""Encoded images → a graph's input: model.yaml's `image` → `ImageFields`, and with it bytes → `ImageFrontEnd`.

    image:
      shortest: 256
      mean: [0.485, 0.456, 0.406]
      std: [0.229, 0.224, 0.225]

The order is: decoding → size → inversion → scale → mean and standard deviation → layout. Size, channels and layout are
the graph's own, where its input says them.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field, ValidationError

from services.worker.batch.graph import Array, Feed, Port, Ports
from services.worker.batch.processor import Rejected
from services.worker.repository.model_file import Frozen, problems
from services.worker.tasks import picture
from services.worker.tasks.image_shape import ChannelNames, Layout, read_shape

MOST_PIXELS = 89_478_485
"""Pillow warns of larger ones itself."""
Side = Annotated[int, Field(ge=1, le=8_192)]
Channels = Annotated[list[float], Field(min_length=1, max_length=3)]
FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge, in pixels of the picture."""


class ImageFields(Frozen):
    """`image` of model.yaml."""

    size: Side | Annotated[list[Side], Field(min_length=2, max_length=2)] | None = Field(
        default=None, description="a square's side, or height and width; None: the graph's own"
    )
    resize: Literal["crop", "pad", "stretch"] = Field(
        default="crop", description="to a size of another shape: the middle, all with margins, or all out of shape"
    )
    shortest: Side | None = Field(
        default=None, description="to which the shorter side is resized before a crop; None: as small as that lets"
    )
    filter: Literal["nearest", "box", "bilinear", "bicubic", "lanczos"] = "bilinear"
    channels: ChannelNames | None = Field(default=None, description="None: as many as the graph has")
    layout: Layout | None = Field(default=None, description="None: as the graph's shape tells")
    background: int = Field(default=255, ge=0, le=255, description="grey of margins, and behind what is transparent")
    invert: bool = Field(default=False, description="whether white becomes 0, and black 255")
    scale: float = Field(default=1 / 255, gt=0, description="what values from 0 to 255 are multiplied by")
    mean: Channels = Field(default=[0.0], description="what is subtracted then, of each channel of the graph or of all")
    std: Channels = Field(default=[1.0], description="what they are divided by then")
    max_pixels: int = Field(default=64_000_000, ge=1, le=MOST_PIXELS, description="of what is decoded")


def read_fields(config: Mapping[str, Any]) -> ImageFields:
    """Of model.yaml's content. Raises ValueError, naming the key."""
    try:
        return ImageFields.model_validate(config["image"] or {})
    except ValidationError as error:
        raise ValueError(f"image.{problems(error).replace('; ', '; image.')}") from None


class ImageFrontEnd:
    """Makes a graph's input. It may be used on several threads at once."""

    def __init__(self, fields: ImageFields, ports: Ports) -> None:
        """Raises ValueError, naming the key, where fields and graph do not fit together."""
        self._fields, self._input = fields, _find(ports)
        self._shape = read_shape(self._input, fields.size, fields.channels, fields.layout)
        if fields.shortest is not None and (fields.resize != "crop" or fields.shortest < max(self._shape.size)):
            raise ValueError(f"image.shortest: is for crop, and at least {max(self._shape.size)}")
        for key, values in (("mean", fields.mean), ("std", fields.std)):
            if len(values) not in (1, self._shape.channels):
                raise ValueError(f"image.{key}: the graph has {self._shape.channels} channels, not {len(values)}")
        if not all(value > 0 for value in fields.std):
            raise ValueError("image.std: must be positive")
        if self._input.datatype == "UINT8" and fields.model_fields_set & {"scale", "mean", "std"}:
            raise ValueError(f"image: {self._input.name} takes whole values from 0 to 255, neither scale, mean nor std")

    def feed(self, encoded: bytes) -> Feed:
        """One row. Raises Rejected."""
        fields = self._fields
        decoded = picture.decode(
            encoded, grey=self._shape.channels == 1, background=fields.background, max_pixels=fields.max_pixels
        )
        return {self._input.name: self._shape.arrange(self._values(self._sized(decoded)))}

    def _sized(self, decoded: Image.Image) -> Image.Image:
        """Raises Rejected."""
        width, height = self._shape.size[::-1]
        if self._fields.resize == "crop":
            return self._resize(decoded, (width, height), _middle(decoded.size, (width, height), self._fields.shortest))
        if self._fields.resize == "stretch":
            return self._resize(decoded, (width, height), (0, 0, *decoded.size))
        factor = min(width / decoded.width, height / decoded.height)
        inner = max(round(decoded.width * factor), 1), max(round(decoded.height * factor), 1)
        canvas = Image.new(decoded.mode, (width, height), (self._fields.background,) * len(decoded.getbands()))
        resized = self._resize(decoded, inner, (0, 0, *decoded.size))
        canvas.paste(resized, ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return canvas

    def _resize(self, decoded: Image.Image, size: tuple[int, int], box: Box) -> Image.Image:
        """Pillow resizes the width first: a picture that is narrow and long would grow beyond all bounds there."""
        if size[0] * (box[3] - box[1]) > self._fields.max_pixels:
            raise Rejected(picture.FIELD, f"has {decoded.width} × {decoded.height} pixels, which is too narrow")
        return decoded.resize(size, FILTERS[self._fields.filter], box)

    def _values(self, sized: Image.Image) -> Array:
        """[height, width, channels]."""
        values: Array = np.asarray(sized).reshape(*self._shape.size, -1)
        if self._fields.channels == "bgr":
            values = values[..., ::-1]
        if self._fields.invert:
            values = 255 - values
        if self._input.datatype == "UINT8":
            return values
        scaled = values * np.float32(self._fields.scale)
        mean, std = (np.array(given, np.float32) for given in (self._fields.mean, self._fields.std))
        return np.asarray((scaled - mean) / std, self._input.dtype)


def _middle(source: tuple[int, int], size: tuple[int, int], shortest: int | None) -> Box:
    """What of the source becomes a crop of this size (each is width and height) where the source's shorter side is
    resized to `shortest`, and the longer one to a whole number too; resized and cropped at once, as the whole picture
    may be too large for memory then."""
    if shortest is None:
        factor = max(size[0] / source[0], size[1] / source[1])
        sides = [(side * factor, (side * factor - cut) / 2) for side, cut in zip(source, size, strict=True)]
    else:
        whole = [shortest * side // min(source) for side in source]
        sides = [(side, round((side - cut) / 2)) for side, cut in zip(whole, size, strict=True)]
    (left, right), (upper, lower) = (
        (max(start * side / whole, 0), min((start + cut) * side / whole, side))
        for side, cut, (whole, start) in zip(source, size, sides, strict=True)
    )
    return left, upper, right, lower


def _find(ports: Ports) -> Port:
    """Raises ValueError."""
    if len(ports.inputs) != 1:
        raise ValueError(f"image: the graph takes {', '.join(port.name for port in ports.inputs)}, not one image")
    return ports.inputs[0]
