"""The numbers of random weights: a stream of normal ones that comes round again after `PERIOD`, so that eight thousand
million are made as fast as they are copied. The period is a prime, hence no two rows or columns of a matrix are alike.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import helper

PERIOD = 4_194_301
BLOCK_ELEMENTS = 1 << 22
Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Strip:
    """Columns of a matrix, whose numbers begin at `start` in the stream and have the standard deviation `scale`."""

    start: int
    columns: int
    scale: float


class Noise:
    """A stream for each seed. Whatever is taken from it is taken before the first of it is read."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._taken = 0
        self._rings: dict[tuple[float, int], Array] = {}

    def take(self, rows: int, columns: int, scale: float) -> Strip:
        strip = Strip(self._taken, columns, scale)
        self._taken += rows * columns
        return strip

    def blocks(self, rows: int, strips: Sequence[Strip], element_type: int) -> Iterator[Array]:
        """A matrix [rows, columns of all strips], some rows at a time; of an `onnx.TensorProto` element type."""
        most = max(1, BLOCK_ELEMENTS // sum(strip.columns for strip in strips))
        for top in range(0, rows, most):
            height = min(most, rows - top)
            pieces = [self._rows(strip, top, height, element_type) for strip in strips]
            yield pieces[0] if len(pieces) == 1 else np.hstack(pieces)

    def _rows(self, strip: Strip, top: int, height: int, element_type: int) -> Array:
        ring, count = self._ring(strip.scale, element_type), height * strip.columns
        start = (strip.start + top * strip.columns) % len(ring)
        if start + count > len(ring):
            numbers = np.concatenate([ring[start:], np.resize(ring, start + count - len(ring))])
        else:
            numbers = ring[start : start + count]
        return numbers.reshape(height, strip.columns)

    def _ring(self, scale: float, element_type: int) -> Array:
        key = (scale, element_type)
        if key not in self._rings:
            numbers = np.random.default_rng(self._seed).standard_normal(min(self._taken, PERIOD), np.float32)
            self._rings[key] = (numbers * np.float32(scale)).astype(helper.tensor_dtype_to_np_dtype(element_type))
        return self._rings[key]
