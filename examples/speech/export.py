"""From trained weights to the model's folder: labels, model.yaml, and the graph, which is checked against PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
import yaml

from examples.publish import publishing
from examples.speech.evaluate import Features, Graph
from examples.speech.features import MELS, SOUND
from examples.speech.model import Network
from examples.speech.score import SYMBOLS

OPSET = 18
IR_VERSION = 10
LARGEST_DIFFERENCE = 1e-3
"""Of a logit."""

MODEL_YAML = """\
name: spoken
task: speech-recognition
engine: batch
description: A small convolutional network with CTC that hears spoken English digits, trained on synthetic voices.
licence: Apache-2.0
graphs:
  cpu: {{path: model.onnx, precision: {precision}}}
labels: {{logits: labels.txt}}
sound: {sound}
batching: {{max_rows: 16}}
"""


def ship(network: Network, features: Sequence[Features], folder: Path) -> float:
    """Write the folder; return how far the graph is from PyTorch on `features` of some sounds, each [frames, mels].

    Raises RuntimeError, and leaves the folder as it was, when that is `LARGEST_DIFFERENCE` or more."""
    with publishing(folder) as unfinished:
        onnx.save_model(build(network), unfinished / "model.onnx")
        found = difference(network, Graph(unfinished / "model.onnx"), features)
        if not found < LARGEST_DIFFERENCE:
            raise RuntimeError(f"the graph's logits are {found:.1e} from PyTorch's")
        describe(unfinished, "fp32")
    return found


def describe(folder: Path, precision: str) -> None:
    """Write what a version has beside its graph."""
    sound = yaml.safe_dump(SOUND, default_flow_style=True, sort_keys=False, width=float("inf")).strip()
    (folder / "model.yaml").write_text(MODEL_YAML.format(precision=precision, sound=sound))
    (folder / "labels.txt").write_text("".join(f"{symbol}\n" for symbol in SYMBOLS))


def build(network: Network) -> onnx.ModelProto:
    """The graph, for any number of rows and frames."""
    frames = torch.export.Dim("frames", min=8, max=8_192)
    program = torch.onnx.export(
        network.eval(),
        (torch.zeros(2, 64, MELS),),
        input_names=["features"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch"), 1: frames},),
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


def difference(network: Network, graph: Graph, features: Sequence[Features]) -> float:
    """The largest of any logit between the graph and PyTorch."""
    with torch.inference_mode():
        found = [abs(graph.run(one[None]) - network(torch.from_numpy(one)[None]).numpy()).max() for one in features]
    return float(np.max(found))
