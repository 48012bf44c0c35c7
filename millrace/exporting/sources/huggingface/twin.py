"""A decoder's graph for a GPU, where there is none: the builder makes another of the same model, for a CPU and of
32-bit floats. That one is compared with transformers, and the weights of the two with each other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from millrace.exporting import graphs
from millrace.exporting.order import Device, Dialect, Order, Precision

NOTE = (
    "of the graph that the builder makes of the same model for a CPU, with GroupQueryAttention and fp32: every weight "
    "of the published graph is one of its weights, rounded; the published graph itself was not run"
)
PRECISIONS = (Precision.FP16, Precision.FP32)
"""Whose weights are the same numbers."""


def order_of(order: Order) -> Order:
    """What the twin is built by."""
    return replace(order, precision=Precision.FP32, device=Device.CPU, dialect=Dialect.GQA)


def check_weights(folder: Path, twin: Path) -> None:
    """Raises ValueError where a weight of the graph in `folder` is not the twin's, rounded to its type."""
    ours, others = _weights(folder), _weights(twin)
    if strangers := ours.keys() ^ others.keys():
        raise ValueError(f"the weights {', '.join(sorted(strangers)[:3])} are in one of the two graphs alone")
    for name, tensor in ours.items():
        stored = numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            expected = numpy_helper.to_array(others[name]).astype(stored.dtype)
        if not np.array_equal(stored, expected, equal_nan=stored.dtype.kind == "f"):
            raise ValueError(f"the weights {name} are not those of the graph for a CPU")


def _weights(folder: Path) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in onnx.load(folder / graphs.GRAPH_FILE).graph.initializer}
