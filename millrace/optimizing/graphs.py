"""ONNX files of candidates: read, rid of what nobody needs, written; and sessions as workers open them."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, external_data_helper

from millrace.exporting.graphs import INLINE_BYTES, tidy
from millrace.optimizing.order import Device

PROVIDERS = {"cpu": ["CPUExecutionProvider"], "cuda": ["CUDAExecutionProvider", "CPUExecutionProvider"]}
ONNX_DOMAINS = ("", "ai.onnx")


class Unsuitable(ValueError):
    """The method has nothing to do for this model; the words say why."""


def open_session(graph: Path, device: Device, threads: int) -> ort.InferenceSession:
    """Threads do not spin between runs, as in a worker. Raises ValueError without such a device, and what ONNX Runtime
    raises."""
    if PROVIDERS[device][0] not in ort.get_available_providers():
        raise ValueError(f"this ONNX Runtime knows no {device}")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return ort.InferenceSession(graph, options, providers=PROVIDERS[device])


def files(graph: Path) -> list[Path]:
    """A graph and the files that hold its weights."""
    model = onnx.load(graph, load_external_data=False)
    tensors = [one for one in model.graph.initializer if external_data_helper.uses_external_data(one)]
    names = {external_data_helper.ExternalDataInfo(tensor).location for tensor in tensors}
    return [graph, *(graph.parent / name for name in sorted(names))]


def size(graph: Path) -> int:
    """Bytes on the disk, weights included."""
    return sum(path.stat().st_size for path in files(graph))


def store(model: onnx.ModelProto, graph: Path) -> None:
    """Writes a model; weights beyond what one file should hold lie in a second one."""
    prune(model)
    tidy(model)
    used = {node.domain for node in model.graph.node} | {"", *(function.domain for function in model.functions)}
    imports = [entry for entry in model.opset_import if entry.domain in used or entry.domain in ONNX_DOMAINS]
    del model.opset_import[:]
    model.opset_import.extend(imports)
    large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > INLINE_BYTES
    onnx.save_model(model, graph, save_as_external_data=large, location=f"{graph.name}.data" if large else None)


def prune(model: onnx.ModelProto) -> None:
    """Removes nodes and constants that no output needs. Graphs with subgraphs stay as they are."""
    graph = model.graph
    if any(attribute.type == onnx.AttributeProto.GRAPH for node in graph.node for attribute in node.attribute):
        return
    made_by = {name: node for node in graph.node for name in node.output}
    needed, open_ends = set[str](), [port.name for port in graph.output]
    while open_ends:
        name = open_ends.pop()
        if name in needed:
            continue
        needed.add(name)
        node = made_by.get(name)
        open_ends += [] if node is None else node.input
    kept = [node for node in graph.node if needed.intersection(node.output)]
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(tensors)


def operators(model: onnx.ModelProto) -> Counter[str]:
    return Counter(f"{node.domain}.{node.op_type}" for node in model.graph.node)


def weights(model: onnx.ModelProto) -> int:
    """How many numbers the constants of floats hold."""
    kinds = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer if tensor.data_type in kinds)
