"""From trained weights to the model's folder: tokenizer, labels, model.yaml, and the graph, checked against PyTorch."""

from pathlib import Path
from typing import Any

import onnx
import torch

from examples.publish import publishing
from examples.text.classifier.data import LABELS
from examples.text.classifier.evaluate import Graph
from examples.text.classifier.model import Network
from examples.text.classifier.tokens import MOST_TOKENS, Encoded
from examples.text.classifier.train import to_rows

OPSET, IR_VERSION = 18, 10
LARGEST_DIFFERENCE = 1e-3
"""Of a logit."""
ROWS = 32
INPUTS = ("input_ids", "attention_mask")

MODEL_YAML = """\
name: {name}
task: text-classification
engine: batch
description: A small transformer encoder that says which package of Python's standard library a function comes from.
licence: Apache-2.0
graphs:
  cpu: {{path: model.onnx, precision: fp32}}
labels: {{logits: labels.txt}}
text: {{max_tokens: {most_tokens}, truncate: true}}
batching: {{max_rows: 16}}
"""


def ship(network: Network, tokenizer: Any, some: Encoded, folder: Path) -> float:
    """Write the folder; return how far the graph is from PyTorch on `some` snippets, which are padded there.

    Raises RuntimeError, and leaves the folder as it was, when that is `LARGEST_DIFFERENCE` or more."""
    with publishing(folder) as unfinished:
        onnx.save_model(build(network), unfinished / "model.onnx")
        found = difference(network, Graph(unfinished / "model.onnx"), some)
        if not found < LARGEST_DIFFERENCE:
            raise RuntimeError(f"the graph's logits are {found:.1e} from PyTorch's")
        (unfinished / "model.yaml").write_text(MODEL_YAML.format(name=folder.parent.name, most_tokens=MOST_TOKENS))
        (unfinished / "labels.txt").write_text("".join(f"{label}\n" for label in LABELS))
        tokenizer.save(str(unfinished / "tokenizer.json"))
    return found


def build(network: Network) -> onnx.ModelProto:
    """The graph, for any number of rows, and of tokens up to `MOST_TOKENS`."""
    shape = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", min=2, max=MOST_TOKENS)}
    ids, mask = (torch.ones(2, 16, dtype=torch.int64) for _ in INPUTS)  # one tensor twice would become one input
    program = torch.onnx.export(
        network.eval(),
        (ids, mask),
        input_names=INPUTS,
        output_names=["logits"],
        dynamic_shapes=(shape, shape),
        opset_version=OPSET,
        dynamo=True,
        verbose=False,
    )
    assert program is not None
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


def difference(network: Network, graph: Graph, some: Encoded) -> float:
    """The largest of any logit between the graph and PyTorch."""
    rows = to_rows(some.ids[:ROWS], some.labels[:ROWS])
    with torch.inference_mode():
        wanted = network(rows.ids, rows.mask).numpy()
    return float(abs(graph.logits(some.ids[:ROWS]) - wanted).max())
