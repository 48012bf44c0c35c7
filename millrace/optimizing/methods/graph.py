"""Graph optimisation ahead of time: what ONNX Runtime does on any machine of a device's kind, and what it leaves to its
offline tool, the fusions of transformers' encoders."""

from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime as ort

from millrace.optimizing import graphs
from millrace.optimizing.graphs import PROVIDERS, Unsuitable
from millrace.optimizing.version import Version

ENCODER = frozenset({"Softmax", "MatMul"})
NORMALISES = frozenset({"LayerNormalization", "ReduceMean"})


def optimise(version: Version, out: Path) -> None:
    before = onnx.load(version.graph)
    with TemporaryDirectory(dir=out.parent) as scratch:
        source = version.graph
        if version.decoder is None and _is_encoder(before):
            source = _fuse(version.graph, Path(scratch))
        after = optimised(source, version, Path(scratch))
    if graphs.operators(after) == graphs.operators(before):
        raise Unsuitable("there is nothing to fuse or to fold")
    graphs.store(after, out)


def optimised(source: Path, version: Version, scratch: Path) -> onnx.ModelProto:
    """At the extended level: the next one's layouts are one processor's."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(scratch / "optimised.onnx")
    options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "optimised.data")
    ort.InferenceSession(source, options, providers=PROVIDERS[version.device])
    return onnx.load(scratch / "optimised.onnx")


def _is_encoder(model: onnx.ModelProto) -> bool:
    """Whether it looks like one of attention."""
    operators = {node.op_type for node in model.graph.node}
    return operators >= ENCODER and not NORMALISES.isdisjoint(operators)


def _fuse(graph: Path, scratch: Path) -> Path:
    """Attention, layer normalisation with its residual, Gelu with its bias; the graph as it is where none is found."""
    from onnxruntime.transformers import optimizer

    fused = optimizer.optimize_model(str(graph), model_type="bert", num_heads=0, hidden_size=0, opt_level=0)
    if not any(fused.get_fused_operator_statistics().values()):
        return graph
    path = scratch / "fused.onnx"
    onnx.save_model(fused.model, path, save_as_external_data=True, location="fused.data")
    return path
