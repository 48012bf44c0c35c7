"""Examples' arrays as the model takes them, and labels from the arrays that it gives."""

from collections.abc import Mapping, Sequence

import numpy as np

from millrace.client.tensors import DTYPES
from millrace.evaluating.asking.answer import Answer, from_scores
from millrace.evaluating.data.example import Array
from millrace.tensors import BYTES, TensorSpec

SCORES = ("probabilities", "scores", "logits")
SUM_TOLERANCE = 1e-3


def cast(arrays: Mapping[str, Array], specs: Sequence[TensorSpec]) -> dict[str, Array]:
    """One row each, of the model's datatypes. Raises ValueError where that would change a whole number."""
    datatypes = {spec.name: spec.datatype for spec in specs}
    return {name: _cast(name, array, datatypes.get(name, ""))[None] for name, array in arrays.items()}


def _cast(name: str, array: Array, datatype: str) -> Array:
    """As it is where the service has to say what is wrong with it."""
    if datatype == BYTES or datatype not in DTYPES or array.dtype.kind not in "biuf":
        return array
    with np.errstate(all="ignore"):
        changed = array.astype(DTYPES[datatype])
    if changed.dtype.kind in "biu" and not np.array_equal(changed, array):
        raise ValueError(f"inputs.{name}: a value does not fit: the model takes {datatype}")
    return changed


def labelled(outputs: Mapping[str, Array], wanted: str, names: Sequence[str]) -> Answer:
    """From the output that is wanted; else from the only one with a row of floats, which are probabilities where they
    sum to 1, and logits where they do not; else from the only one with a single label.

    Raises ValueError where that is none or several.
    """
    if wanted and wanted not in outputs:
        raise ValueError(f"there is no output {wanted!r}; the model gives {', '.join(outputs)}")
    rows = {name: array.reshape(-1) for name, array in outputs.items() if not wanted or name == wanted}
    floats = {name: row for name, row in rows.items() if row.dtype.kind == "f" and row.size > 1}
    if len(floats) > 1:
        floats = {name: floats[name] for name in SCORES if name in floats}
    if floats:
        return _scored(next(iter(floats.values())), names)
    single = [row for row in rows.values() if row.size == 1 and row.dtype.kind != "f"]
    if len(single) != 1:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in outputs.items())
        raise ValueError(f"which output has the scores or the label is not clear ({shapes}): --output says it")
    return Answer(label=_name(single[0][0], names))


def _scored(row: Array, names: Sequence[str]) -> Answer:
    if names and len(names) != row.size:
        raise ValueError(f"there are {len(names)} names of labels, and the model gives {row.size} scores")
    values = row.astype(np.float64)
    if values.min() < 0 or abs(values.sum() - 1) > SUM_TOLERANCE:
        exponents = np.exp(values - values.max())
        values = exponents / exponents.sum()
    return from_scores([(names[place] if names else str(place), float(value)) for place, value in enumerate(values)])


def _name(value: object, names: Sequence[str]) -> str:
    """A whole number is a place among the names, where there are any."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    place = int(value) if isinstance(value, np.integer) else -1
    return names[place] if 0 <= place < len(names) else str(value)
