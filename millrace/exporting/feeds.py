"""Inputs that original and graph are compared on: random ones of several batch sizes and lengths, and given ones."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from millrace.exporting.parity import Array

ROWS = (1, 3, 8)
LENGTHS = (5, 32, 47)
SEED = 5
Dims = Sequence[int | str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """An input or output: `dims` holds names where any size goes."""

    name: str
    dtype: np.dtype[np.generic]
    dims: tuple[int | str, ...]

    @property
    def told(self) -> str:
        return f"{self.dtype.name} [{', '.join(map(str, self.dims))}]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """One run's inputs, and what they are, for people."""

    given: str
    tensors: Mapping[str, Array]


def random_feeds(
    ports: Sequence[Port], *, high: int = 2, rows: Sequence[int] = ROWS, lengths: Sequence[int] = LENGTHS
) -> Iterator[Feed]:
    """A run for each number of rows. Dimensions called alike get the same size, the first named one the rows, others a
    length. Floats are drawn from a normal distribution, integers below `high`."""
    dice = np.random.default_rng(SEED)
    batch = next((dim for port in ports for dim in port.dims[:1] if isinstance(dim, str)), None)
    others = {dim for port in ports for dim in port.dims if isinstance(dim, str)} - {batch}
    for count, length in zip(rows if batch or others else rows[:1], lengths, strict=False):
        sizes = dict.fromkeys(others, length) | ({batch: count} if batch else {})
        tensors = {
            port.name: draw(dice, port.dtype, [sizes[d] if isinstance(d, str) else d for d in port.dims], high)
            for port in ports
        }
        yield Feed(given=told(sizes[batch] if batch else None, length if others else None), tensors=tensors)


def draw(dice: np.random.Generator, dtype: np.dtype[np.generic], shape: Sequence[int], high: int) -> Array:
    if dtype.kind == "f":
        return dice.standard_normal(shape).astype(dtype)
    if dtype.kind in "iu":
        return dice.integers(0, high, shape).astype(dtype)
    if dtype.kind == "b":
        return dice.integers(0, 2, shape).astype(bool)
    raise ValueError(f"there are no random inputs of {dtype.name}: give some with --samples FILE.npz")


def read_samples(path: Path, ports: Sequence[Port]) -> Feed:
    """The arrays of a .npz file, by the inputs' names. Raises ValueError where they are not what the model takes."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError) as error:
        raise ValueError(f"--samples {path.name}: not an .npz file of plain arrays: {error}") from None
    names = {port.name for port in ports}
    if missing := names - found.keys():
        raise ValueError(f"--samples {path.name}: no array {', '.join(sorted(missing))}; it has {', '.join(found)}")
    tensors = {port.name: found[port.name].astype(port.dtype) for port in ports}
    rows = {len(array) for array in tensors.values() if array.ndim}
    return Feed(given=f"samples, {max(rows, default=1)}", tensors=tensors)


def read_texts(path: Path) -> list[str]:
    """One a line, without empty ones. Raises ValueError where there are none."""
    try:
        texts = [line for line in path.read_text().splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"--samples {path.name}: not a text file: {error}") from None
    if not texts:
        raise ValueError(f"--samples {path.name}: holds no texts")
    return texts


def told(rows: int | None, length: int | None = None) -> str:
    """As "3 × 17"."""
    return " × ".join(str(size) for size in (rows, length) if size is not None) or "once"
