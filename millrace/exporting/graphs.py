"""ONNX files between a source's exporter and the model's folder: tidied, stored, run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from millrace.exporting.feeds import Port
from millrace.exporting.parity import Tensors

GRAPH_FILE = "model.onnx"
DATA_FILE = "model.onnx.data"
OPSET = 18
IR_VERSION = 10
"""That ONNX Runtime of the last years reads."""
INLINE_BYTES = 256 << 20
"""Weights beyond it lie in a file of their own."""
BATCH = "batch"
FATAL = 4
"""The severity from which ONNX Runtime writes to standard error: what it raises is told once."""


def save(model: onnx.ModelProto, folder: Path) -> Path:
    """Writes graph and weights; what the exporter noted of its source, which names files of this machine, stays away.
    Raises ValueError where the graph is not in order."""
    tidy(model)
    path = folder / GRAPH_FILE
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > INLINE_BYTES
    onnx.save_model(model, path, save_as_external_data=large, location=DATA_FILE if large else None)
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ValueError(f"the exporter made a graph that is not in order: {error}") from error
    return path


def tidy(model: onnx.ModelProto) -> None:
    """Without docstrings and metadata, of an IR version that is widely read."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for function in model.functions:
        parts += [function, *function.node, *function.value_info]
    for part in parts:
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    model.producer_name, model.producer_version = "millrace", ""
    model.ir_version = min(model.ir_version, IR_VERSION)


def strip(path: Path) -> None:
    """Tidies a graph where it lies, without reading weights that lie in another file."""
    model = onnx.load(path, load_external_data=False)
    tidy(model)
    path.write_bytes(model.SerializeToString())


def name_batch(model: onnx.ModelProto) -> None:
    """Calls the first dimension of inputs and outputs `batch`, wherever it has no size."""
    for port in (*model.graph.input, *model.graph.output):
        dims = port.type.tensor_type.shape.dim
        if dims and not dims[0].HasField("dim_value"):
            dims[0].dim_param = BATCH
        for axis, dim in enumerate(dims[1:], start=1):
            if not dim.HasField("dim_value") and (not dim.dim_param or dim.dim_param.startswith("unk__")):
                dim.dim_param = f"size_{axis}"


def rename(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Inputs and outputs, by the names that they have."""
    for node in model.graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(end, end) for end in ends]
    for port in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        port.name = names.get(port.name, port.name)
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)


def halve(path: Path) -> None:
    """Stores the fp32 matrices of a graph in fp16, each behind a Cast that ONNX Runtime folds when it loads it. Tables
    of rotary positions stay. Raises ValueError where a weight is beyond fp16's range."""
    model = onnx.load(path)
    graph, casts = model.graph, []
    for index, tensor in enumerate(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2 or tensor.name.endswith("_cache"):
            continue
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(values).all():
            raise ValueError(f"--precision fp16: the weights {tensor.name} are beyond its range; export as fp32")
        stored = f"{tensor.name}.fp16"
        casts.append(helper.make_node("Cast", [stored], [tensor.name], f"/{stored}/Cast", to=TensorProto.FLOAT))
        graph.initializer[index].CopyFrom(numpy_helper.from_array(values, stored))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    external = path.with_name(DATA_FILE)
    has_external = external.exists()
    external.unlink(missing_ok=True)
    onnx.save_model(model, path, save_as_external_data=has_external, location=DATA_FILE if has_external else None)


def session(path: Path, providers: Sequence[str] = ("CPUExecutionProvider",)) -> ort.InferenceSession:
    """Raises ValueError where ONNX Runtime does not take the graph."""
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    try:
        return ort.InferenceSession(path, options, providers=list(providers))
    except Exception as error:  # ONNX Runtime's errors have no base of their own
        raise ValueError(f"ONNX Runtime does not take the graph: {error}") from error


def run(opened: ort.InferenceSession, tensors: Tensors) -> Tensors:
    """All outputs, by name. Raises ValueError where the run fails."""
    names = [port.name for port in opened.get_outputs()]
    try:
        return dict(zip(names, opened.run(names, dict(tensors)), strict=True))
    except Exception as error:  # as above
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in tensors.items())
        raise ValueError(f"the graph fails on {shapes}: {error}") from error


def inputs(opened: ort.InferenceSession) -> tuple[Port, ...]:
    return tuple(map(_port, opened.get_inputs()))


def outputs(opened: ort.InferenceSession) -> tuple[Port, ...]:
    return tuple(map(_port, opened.get_outputs()))


def first_floats(ports: Iterable[Port], ranks: Sequence[int] = (2,)) -> Port | None:
    """The first port of floats with so many dimensions: [rows, values]."""
    return next((port for port in ports if port.dtype.kind == "f" and len(port.dims) in ranks), None)


DTYPES = {
    "float": "float32",
    "double": "float64",
    "float16": "float16",
    "int64": "int64",
    "int32": "int32",
    "int16": "int16",
    "int8": "int8",
    "uint8": "uint8",
    "uint16": "uint16",
    "uint32": "uint32",
    "uint64": "uint64",
    "bool": "bool",
    "string": "object",
}


def _port(argument: Any) -> Port:
    kind = str(argument.type).removeprefix("tensor(").removesuffix(")")
    if kind not in DTYPES:
        raise ValueError(f"{argument.name} is a {argument.type}, which is not served")
    dims = tuple(dim if isinstance(dim, int) else dim or f"{argument.name}_{i}" for i, dim in enumerate(argument.shape))
    return Port(name=argument.name, dtype=np.dtype(DTYPES[kind]), dims=dims)
