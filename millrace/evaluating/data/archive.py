"""Tensors from numpy's .npz: one array for each input and `label`, all with the examples as their first dimension."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from millrace.evaluating.data.example import Array, Example

LABEL = "label"


def read_archive(path: Path) -> list[Example]:
    """Raises ValueError where it is not such an archive, OSError where there is none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path.name} is no archive of plain arrays: {error}") from None
    return [*_examples(path.name, arrays)]


def _examples(name: str, arrays: dict[str, Array]) -> Iterator[Example]:
    if LABEL not in arrays or len(arrays) < 2:
        has = ", ".join(arrays) or "nothing"
        raise ValueError(f"{name} has {has}: it needs {LABEL!r}, and an array for each input")
    counts = {key: array.shape[0] if array.ndim else -1 for key, array in arrays.items()}
    if len(set(counts.values())) != 1 or -1 in counts.values():
        raise ValueError(f"{name}: arrays differ in their first dimension: {counts}")
    labels = arrays.pop(LABEL)
    if labels.ndim != 1 or labels.dtype.kind not in "biuU":
        raise ValueError(f"{name}: {LABEL!r} must be one whole number or text for each example")
    for place, label in enumerate(labels.tolist()):
        yield Example(id=str(place), arrays={key: array[place] for key, array in arrays.items()}, truth=str(label))
