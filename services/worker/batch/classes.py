"""The classification extension of the Open Inference Protocol: a tensor of numbers as its largest ones, each with its
place and its label."""

from collections.abc import Sequence

import numpy as np

from services.worker.batch.graph import Array


def classify(array: Array, count: int, labels: Sequence[str], *, batched: bool) -> Array:
    """Texts "VALUE:INDEX" or "VALUE:INDEX:LABEL" of the `count` largest values of each row, of equals the first; of the
    whole array where rows are not batched. [rows, count] or [count]."""
    rows = array.reshape(array.shape[0] if batched else 1, -1)
    order = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    texts = np.empty(order.shape, np.object_)
    for row, places in enumerate(order.tolist()):
        texts[row, :] = [_text(rows[row, place], place, labels) for place in places]
    return texts if batched else texts[0]


def _text(value: float, place: int, labels: Sequence[str]) -> str:
    """As Triton writes it: six decimals, and no label where none is known."""
    return f"{value:f}:{place}" + (f":{labels[place]}" if place < len(labels) else "")
