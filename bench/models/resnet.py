"""ResNet v1.5 with bottlenecks, by default ResNet-50, with its normalisation folded into the convolutions, as exports
for serving have it."""

from dataclasses import dataclass

import onnx

from tests.models.drawing import Drawing, port

INPUT, OUTPUT = "image", "logits"
EXPANSION = 4
RESIDUAL_GAIN = 0.2
"""Of the last convolution of a block: keeps the sum over many blocks of random weights in range."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet:
    """Its shape."""

    blocks: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    classes: int = 1000
    size: int = 224
    seed: int = 0


def build(shape: ResNet) -> onnx.ModelProto:
    """Input float [batch, 3, size, size]; output float [batch, classes]."""
    graph = Drawing(seed=shape.seed)
    state = graph.node("Relu", _convolve(graph, INPUT, 3, shape.width, kernel=7, stride=2))
    state = graph.node("MaxPool", state, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    channels = shape.width
    for stage, blocks in enumerate(shape.blocks):
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            state = _block(graph, state, channels, shape.width << stage, stride)
            channels = (shape.width << stage) * EXPANSION
    pooled = graph.node("Flatten", graph.node("GlobalAveragePool", state))
    weight = graph.random(channels, shape.classes, scale=channels**-0.5)
    graph.node("Gemm", pooled, weight, graph.random(shape.classes, scale=0.02), output=OUTPUT)
    return graph.model(
        [port(INPUT, ["batch", 3, shape.size, shape.size])],
        [port(OUTPUT, ["batch", shape.classes])],
    )


def _block(graph: Drawing, source: str, channels: int, width: int, stride: int) -> str:
    """1×1, 3×3 (which strides: v1.5), 1×1, beside a shortcut."""
    wide = width * EXPANSION
    state = graph.node("Relu", _convolve(graph, source, channels, width))
    state = graph.node("Relu", _convolve(graph, state, width, width, kernel=3, stride=stride))
    state = _convolve(graph, state, width, wide, gain=RESIDUAL_GAIN)
    fits = stride == 1 and channels == wide
    shortcut = source if fits else _convolve(graph, source, channels, wide, stride=stride, gain=0.5)
    return graph.node("Relu", graph.node("Add", state, shortcut))


def _convolve(
    graph: Drawing, source: str, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, gain: float = 1.0
) -> str:
    weight = graph.random(outputs, inputs, kernel, kernel, scale=gain * (2 / (inputs * kernel**2)) ** 0.5)
    return graph.node(
        "Conv",
        source,
        weight,
        graph.random(outputs, scale=0.02),
        kernel_shape=[kernel, kernel],
        strides=[stride, stride],
        pads=[kernel // 2] * 4,
    )
