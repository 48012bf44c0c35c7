"""Matrices in fewer bits: whole numbers and their scales, symmetric about zero. Deterministic, and quick.

Temporary arrays are pieces of `PIECE` values, so that the peak of memory is the matrix, its result, and little more.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

PIECE = 1 << 18
Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]
SignedBytes = npt.NDArray[np.int8]


def per_column(values: Floats) -> tuple[SignedBytes, Floats]:
    """Eight bits for each value of a matrix [inputs, outputs], and a scale for each column.

    Returns whole numbers [inputs, outputs] from -127 to 127, and scales [outputs]. Raises ValueError where a value
    is not finite.
    """
    peak = np.maximum(values.max(axis=0), -values.min(axis=0))
    _check_finite(peak)
    scales = peak / np.float32(127)
    steps = _divisible(scales)
    whole = np.empty(values.shape, np.int8)
    for rows in _pieces(*values.shape):
        whole[rows] = np.rint(values[rows] / steps)
    return whole, scales


def per_block(values: Floats, *, bits: int, block: int) -> tuple[Bytes, Floats]:
    """Four or eight bits for each value of a matrix [inputs, outputs], and a scale for each run of `block` inputs of
    each column, as the operator MatMulNBits takes them.

    Returns whole numbers [outputs, blocks, block * bits / 8], of which the middle is zero and the first lies in the
    lower bits of a byte, and scales [outputs, blocks]. Raises ValueError where a value is not finite.
    """
    inputs, outputs = values.shape
    blocks = -(-inputs // block)
    whole = np.empty((outputs, blocks, block * bits // 8), np.uint8)
    scales = np.empty((outputs, blocks), np.float32)
    for rows in _pieces(outputs, blocks * block):
        piece = np.zeros((rows.stop - rows.start, blocks * block), np.float32)
        piece[:, :inputs] = values[:, rows].T
        runs = piece.reshape(-1, blocks, block)
        numbers, scales[rows] = _round_runs(runs, 1 << bits - 1)
        whole[rows] = numbers if bits == 8 else numbers[..., 0::2] | numbers[..., 1::2] << 4
    return whole, scales


def _round_runs(runs: Floats, middle: int) -> tuple[Bytes, Floats]:
    """The value that is farthest from zero becomes the lowest number, for there is one more below zero than above."""
    highest, lowest = runs.max(axis=-1), runs.min(axis=-1)
    peak = np.where(highest > -lowest, highest, lowest)
    _check_finite(peak)
    scales = peak / np.float32(-middle)
    numbers = np.rint(runs / _divisible(scales)[..., np.newaxis])
    return (np.minimum(numbers, middle - 1) + middle).astype(np.uint8), scales


def _divisible(scales: Floats) -> Floats:
    """A scale of zero stands where all values are zero, or too small to count."""
    return np.where(scales == 0, np.float32(1), scales)


def _check_finite(peak: Floats) -> None:
    if not np.isfinite(peak).all():
        raise ValueError("it has values that are not finite")


def _pieces(rows: int, columns: int) -> Iterator[slice]:
    step = max(1, PIECE // columns)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
