"""16-bit floats: of graphs of tensors the arithmetic too, of decoders the weights, which a session folds back to 32."""

import math
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from millrace.optimizing import graphs
from millrace.optimizing.graphs import Unsuitable
from millrace.optimizing.methods.fold import LEAST_SHARE
from millrace.optimizing.version import Version


def halve(version: Version, out: Path) -> None:
    model = onnx.load(version.graph)
    values = sum(math.prod(tensor.dims) for tensor in model.graph.initializer if _is_matrix(tensor))
    if values < LEAST_SHARE * graphs.weights(model):
        raise Unsuitable("its matrices are no 32-bit floats")
    graphs.store(_store_half(model) if version.decoder else _convert(model), out)


def _convert(model: onnx.ModelProto) -> onnx.ModelProto:
    """Inputs and outputs keep their types."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    converted = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    converted.topological_sort()
    made: onnx.ModelProto = converted.model
    return made


def _store_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each matrix behind a Cast. Raises Unsuitable for a weight beyond the range."""
    casts, graph = [], model.graph
    for index, tensor in enumerate(graph.initializer):
        if not _is_matrix(tensor):
            continue
        with np.errstate(over="ignore"):
            values = numpy_helper.to_array(tensor).astype(np.float16)
        if not np.isfinite(values).all():
            raise Unsuitable(f"the weight {tensor.name} is beyond the range of 16-bit floats")
        stored = f"{tensor.name}.fp16"
        casts.append(helper.make_node("Cast", [stored], [tensor.name], f"/{stored}/Cast", to=TensorProto.FLOAT))
        graph.initializer[index].CopyFrom(numpy_helper.from_array(values, stored))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
    return model


def _is_matrix(tensor: onnx.TensorProto) -> bool:
    """Of 32-bit floats; tables of rotary positions are none."""
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) >= 2 and not tensor.name.endswith("_cache")
