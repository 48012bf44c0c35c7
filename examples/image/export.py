"""From trained weights to the model's folder: the ONNX graph, which is checked against PyTorch, and `model.yaml`."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch

from examples.image.evaluate import Graph
from examples.image.model import Classifier, Network
from examples.publish import publishing

OPSET = 18
IR_VERSION = 10
LARGEST_DIFFERENCE = 1e-5

MODEL_YAML = """\
name: digits
task: image-classification
engine: batch
description: A small residual network that reads handwritten digits of 8x8 pixels, trained on scikit-learn's digits.
licence: Apache-2.0
graphs:
  cpu: {path: model.onnx, precision: fp32}
  cuda: {path: model.onnx, precision: fp32}
classes: {scores: none}
image: {scale: 0.06274509803921569, invert: true}
batching: {max_rows: 64}
"""


def ship(network: Network, x: npt.NDArray[np.uint8], folder: Path) -> float:
    """Write the version's folder; return how far the graph is from PyTorch on the images `x`.

    Raises RuntimeError, and leaves the folder as it was, when that is `LARGEST_DIFFERENCE` or more.
    """
    with publishing(folder) as unfinished:
        path = unfinished / "model.onnx"
        onnx.save_model(build(network), path)
        found = difference(network, Graph(path), x)
        if not found < LARGEST_DIFFERENCE:
            raise RuntimeError(f"the graph's probabilities are {found:.1e} from PyTorch's")
        (unfinished / "model.yaml").write_text(MODEL_YAML)
    return found


def build(network: Network) -> onnx.ModelProto:
    """The graph of the network with its softmax and its label; the first axis of all inputs and outputs is `batch`."""
    program = torch.onnx.export(
        Classifier(network).eval(),
        (torch.zeros(2, 1, 8, 8),),
        input_names=["x"],
        output_names=["probabilities", "label"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    model: onnx.ModelProto = program.model_proto
    strip(model)
    model.ir_version = min(model.ir_version, IR_VERSION)
    onnx.checker.check_model(model, full_check=True)
    return model


def strip(model: onnx.ModelProto) -> None:
    """Remove what the exporter notes about the source: docstrings and metadata, which name files of this machine."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


def difference(network: Network, graph: Graph, x: npt.NDArray[np.uint8]) -> float:
    """The largest difference of any probability between the graph and PyTorch."""
    with torch.no_grad():
        expected, _ = Classifier(network).eval()(torch.from_numpy(x).float())
    return float(abs(graph.run(x)[0] - expected.numpy()).max())
