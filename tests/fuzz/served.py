"""Graphs, each with a trait that matters to a batch, and what they answer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto

from tests import graphs

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A graph, a request for it, and what it answers."""

    graph: Callable[[], onnx.ModelProto]
    feed: Arrays
    answer: Callable[[Arrays], Arrays] | None = None
    """None: only that there is an answer is known."""
    batching: Mapping[str, Any] = field(default_factory=dict)


def reals(*shape: int) -> Array:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


def lengths() -> onnx.ModelProto:
    """Two dimensions of any size beside the rows."""
    shape = ["batch", "a", "b"]
    return graphs.model(
        [("Neg", ["x"], ["y"], {})], {"x": (TensorProto.FLOAT, shape)}, {"y": (TensorProto.FLOAT, shape)}, {}
    )


def reshaped() -> onnx.ModelProto:
    """The output's shape is an input: its dimensions need not be as many as the graph says."""
    return graphs.model(
        [("Reshape", ["x", "shape"], ["y"], {})],
        {"x": (TensorProto.FLOAT, ["n"]), "shape": (TensorProto.INT64, ["rank"])},
        {"y": (TensorProto.FLOAT, ["a", "b"])},
        {},
    )


def numerals() -> onnx.ModelProto:
    """Texts to numbers: a text that is none makes the whole run fail."""
    return graphs.model(
        [("Cast", ["x"], ["y"], {"to": TensorProto.FLOAT})],
        {"x": (TensorProto.STRING, ["batch", 2])},
        {"y": (TensorProto.FLOAT, ["batch", 2])},
        {},
    )


def identity(element_type: int, *dims: int | str) -> Callable[[], onnx.ModelProto]:
    return lambda: graphs.identity(element_type, dims)


def same(feed: Arrays) -> Arrays:
    return {"y": feed["x"]}


def centred(feed: Arrays) -> Arrays:
    rows = feed["x"]
    return {"y": rows - rows.mean(0) if len(rows) else rows}


def looked_up(feed: Arrays) -> Arrays:
    table = np.arange(graphs.VOCABULARY * 2, dtype=np.float32).reshape(graphs.VOCABULARY, 2)
    return {"vectors": table[feed["ids"]]}


IDS = np.ones((2, 4), np.int64)
SERVED: Mapping[str, Served] = {
    "affine": Served(graph=graphs.affine, feed={"x": reals(2, 3)}, answer=lambda feed: {"y": 2 * feed["x"] + 1}),
    "mixing": Served(graph=graphs.mixing, feed={"x": reals(2, 3)}, answer=centred),
    "embedding": Served(graph=graphs.embedding, feed={"ids": IDS}, answer=looked_up),
    "attention": Served(
        graph=graphs.attention,
        feed={"input_ids": IDS, "attention_mask": IDS},
        batching={"buckets": {"sequence": [4, 16]}},
    ),
    "lengths": Served(
        graph=lengths,
        feed={"x": reals(1, 2, 3)},
        answer=lambda feed: {"y": -feed["x"]},
        batching={"buckets": {"a": 8, "b": [4, 512]}, "max_rows": 8, "padding": {"x": 1.5}},
    ),
    "reshaped": Served(graph=reshaped, feed={"x": reals(6), "shape": np.array([2, 3])}),
    "numerals": Served(graph=numerals, feed={"x": np.array([[b"1", b"2.5"]], object)}),
    "texts": Served(
        graph=identity(TensorProto.STRING, "batch", 2), feed={"x": np.array([["é".encode(), b""]], object)}, answer=same
    ),
    "truths": Served(
        graph=identity(TensorProto.BOOL, "batch", 3), feed={"x": np.array([[True, False, True]])}, answer=same
    ),
    "halves": Served(graph=identity(TensorProto.FLOAT16, 2, "n"), feed={"x": np.ones((2, 3), np.float16)}, answer=same),
    "bytes": Served(graph=identity(TensorProto.INT8, "batch"), feed={"x": np.arange(5, dtype=np.int8)}, answer=same),
    "number": Served(graph=identity(TensorProto.UINT64), feed={"x": np.array(2**64 - 1, np.uint64)}, answer=same),
}
