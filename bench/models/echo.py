"""A model that gives what it gets: what a request costs when the model costs nothing."""

import onnx

from tests.models.drawing import Drawing, port

INPUT, OUTPUT = "given", "same"


def build() -> onnx.ModelProto:
    """Input and output float [batch, width]."""
    graph = Drawing()
    graph.node("Identity", INPUT, output=OUTPUT)
    return graph.model([port(INPUT, ["batch", "width"])], [port(OUTPUT, ["batch", "width"])])
