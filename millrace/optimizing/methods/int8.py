"""8-bit whole numbers by ONNX Runtime's quantisers: ranges of activations found as it runs, or known from data."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from millrace.exporting.graphs import INLINE_BYTES
from millrace.exporting.parity import Tensors
from millrace.optimizing import graphs
from millrace.optimizing.graphs import Unsuitable
from millrace.optimizing.methods.fold import fold
from millrace.optimizing.order import Calibration
from millrace.optimizing.version import Version

DYNAMIC = ["MatMul", "Attention", "LSTM", "Gather"]
"""Not Conv: its product of whole numbers is slower than that of floats."""
ROWS_DEPEND = "its streams would depend on each other: see int8-block"
ENDS = frozenset({"Softmax", "LogSoftmax", "Sigmoid"})
"""That stay in floats where an output comes from them: what a caller gets has more than 256 values."""
METHODS = {Calibration.MINMAX: CalibrationMethod.MinMax, Calibration.ENTROPY: CalibrationMethod.Entropy}


def dynamic(version: Version, out: Path) -> None:
    """One range for all rows of a run."""
    if version.decoder is not None:
        raise Unsuitable(ROWS_DEPEND)
    model = onnx.load(version.graph)
    fold(model)
    with TemporaryDirectory(dir=out.parent) as scratch:
        source, made = Path(scratch) / "folded.onnx", Path(scratch) / "int8.onnx"
        graphs.store(model, source)
        quantize_dynamic(
            source,
            made,
            op_types_to_quantize=DYNAMIC,
            weight_type=QuantType.QInt8,
            per_channel=True,
            use_external_data_format=graphs.size(source) > INLINE_BYTES,
        )
        graphs.store(onnx.load(made), out)


def static(version: Version, out: Path, feeds: Iterator[Tensors] | None, calibrate: Calibration) -> None:
    """Whole numbers with signs on both sides, a scale for each channel of weights, QuantizeLinear and DequantizeLinear
    around each operator but `ENDS`."""
    if version.decoder is not None:
        raise Unsuitable("no range of activations holds for all texts: see int8-block")
    if feeds is None:
        raise Unsuitable("needs --calibration FILE")
    inputs = list(feeds)
    if calibrate is Calibration.ENTROPY and len({_shapes(feed) for feed in inputs}) > 1:
        raise Unsuitable("inputs differ in length: needs --calibrate minmax")
    with TemporaryDirectory(dir=out.parent) as scratch:
        source, made = Path(scratch) / "prepared.onnx", Path(scratch) / "int8.onnx"
        large = graphs.size(version.graph) > INLINE_BYTES
        quant_pre_process(
            version.graph, source, skip_symbolic_shape=True, save_as_external_data=large, all_tensors_to_one_file=True
        )
        ends = _name_ends(source)
        quantize_static(
            source,
            made,
            _Reader(iter(inputs)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[calibrate],
            nodes_to_exclude=ends,
            use_external_data_format=large,
        )
        graphs.store(onnx.load(made), out)


def _name_ends(path: Path) -> list[str]:
    """The names of the ENDS that outputs come from; those that have none get one."""
    model = onnx.load(path, load_external_data=False)
    outputs = {port.name for port in model.graph.output}
    ends = [node for node in model.graph.node if node.op_type in ENDS and outputs & {*node.output}]
    for node in ends:
        node.name = node.name or f"end_of_{node.output[0]}"
    path.write_bytes(model.SerializeToString())
    return [node.name for node in ends]


def _shapes(feed: Tensors) -> tuple[tuple[int, ...], ...]:
    return tuple(array.shape for array in feed.values())


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Iterator[Tensors]) -> None:
        self._feeds = feeds

    def get_next(self) -> Mapping[str, Any] | None:
        """None behind the last."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)
