"""Methods by name: each writes a candidate's graph, or raises Unsuitable with a sentence."""

from collections.abc import Iterator
from pathlib import Path

from millrace.exporting.parity import Tensors
from millrace.optimizing.methods import blocks, graph, half
from millrace.optimizing.order import Calibration, Method
from millrace.optimizing.version import Version

PRECISIONS = {
    Method.FP16: "fp16",
    Method.INT8: "int8",
    Method.INT8_STATIC: "int8",
    Method.INT8_BLOCK: "int8",
    Method.INT4: "int4",
}
"""What model.yaml says of them; graph optimisation keeps what there was."""


def make(method: Method, version: Version, out: Path, feeds: Iterator[Tensors] | None, calibrate: Calibration) -> None:
    """`feeds`: inputs that int8-static takes ranges from."""
    from millrace.optimizing.methods import int8

    match method:
        case Method.GRAPH:
            graph.optimise(version, out)
        case Method.FP16:
            half.halve(version, out)
        case Method.INT8:
            int8.dynamic(version, out)
        case Method.INT8_STATIC:
            int8.static(version, out, feeds, calibrate)
        case Method.INT8_BLOCK:
            blocks.int8(version, out)
        case Method.INT4:
            blocks.int4(version, out)
