"""ONNX files that are broken or hostile, read by the real repository and run by the real runtime."""

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from millrace.engine import Engine
from services.worker.batch import BatchEngine, graph
from tests import graphs
from tests.fuzz.folders import Folder, Generation
from tests.fuzz.mutate import mutate_bytes, mutate_message
from tests.fuzz.served import SERVED
from tests.fuzz.target import must
from tests.fuzz.tensors import request
from tests.worker.steps import leased

TRIAL_S = 1.0
"""Of the engine, cut short for graphs without an end."""
PROBED_BYTES = 1 << 20
MOST_STEPS = 100


def loop(turns: int = 3) -> onnx.ModelProto:
    """Adds 1 to its input, so many times, by a graph within the graph."""
    ports = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", 2]) for name in ("v", "w")}
    turn = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    truth = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("go", "still")]
    nodes = [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Add", ["v", "one"], ["w"])]
    one = numpy_helper.from_array(np.array(1, np.float32), "one")
    body = helper.make_graph(nodes, "body", [turn, truth[0], ports["v"]], [truth[1], ports["w"]], [one])
    return graphs.model(
        [("Loop", ["turns", "always", "x"], ["y"], {"body": body})],
        {"x": (TensorProto.FLOAT, ["batch", 2])},
        {"y": (TensorProto.FLOAT, ["batch", 2])},
        {"turns": np.array(turns), "always": np.array(True)},
    )


def constant() -> onnx.ModelProto:
    """Adds a tensor that a node holds."""
    value = numpy_helper.from_array(np.ones(3, np.float32))
    return graphs.model(
        [("Constant", [], ["w"], {"value": value}), ("Add", ["x", "w"], ["y"], {})],
        {"x": (TensorProto.FLOAT, ["batch", 3])},
        {"y": (TensorProto.FLOAT, ["batch", 3])},
        {},
    )


def image() -> onnx.ModelProto:
    """A convolution, a pooling and a reshape, whose attributes are numbers to get wrong."""
    return graphs.model(
        [
            ("Conv", ["x", "w"], ["c"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}),
            ("MaxPool", ["c"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Reshape", ["p", "shape"], ["y"], {}),
        ],
        {"x": (TensorProto.FLOAT, ["batch", 1, 8, 8])},
        {"y": (TensorProto.FLOAT, ["batch", 32])},
        {"w": np.ones((2, 1, 3, 3), np.float32), "shape": np.array([-1, 32])},
    )


GRAPHS: Sequence[Callable[[], onnx.ModelProto]] = (
    *(served.graph for served in SERVED.values()),
    *(loop, constant, image),
)


class OnnxFile(Folder):
    """The bytes of a graph, in a folder that holds nothing else."""

    name, share, file = "onnx", 2_500, "model.onnx"

    def write(self, folder: Path) -> Path:
        return graphs.write_graph(folder, "tested", graphs.affine())

    def open(self, stack: ExitStack) -> None:
        super().open(stack)
        graph.TRIAL_S = TRIAL_S

    @cached_property
    def samples(self) -> Sequence[bytes]:
        return [build().SerializeToString() for build in GRAPHS]

    @cached_property
    def known(self) -> Sequence[bytes]:
        return (*self.samples, b"", b"\0" * 1_000, loop(2**62).SerializeToString())

    def mutant(self, dice: random.Random) -> bytes:
        if dice.random() < 0.2:
            return mutate_bytes(dice, dice.choice(self.samples), dice.choice(self.samples))
        return mutate_message(dice, self.samples)

    def probe(self, engine: Engine) -> None:
        """A request of the shape that the graph asks for has one end."""
        assert isinstance(engine, BatchEngine)
        if graph.trial_bytes(engine.ports.inputs, 2) > PROBED_BYTES:
            return
        feed = graph.trial(engine.ports.inputs, 2, 1)
        packed = {name: _as_bytes(array) for name, array in feed.items()}
        engine.add(leased("a", request("tested", packed)))
        outputs = [output for _ in range(MOST_STEPS) for output in engine.step() or ()]
        must(len(outputs) == 1 and outputs[0].last, f"{len(outputs)} outputs")
        if callable(outputs[0].result):
            outputs[0].result()


def _as_bytes(array: Any) -> Any:
    if array.dtype != object:
        return array
    texts = np.empty(array.shape, object)
    texts[...] = b"1"
    return texts


class DecoderFile(Generation):
    """The bytes of a decoder's graph."""

    name, share, file = "decoder-onnx", 250, "model.onnx"

    def mutant(self, dice: random.Random) -> bytes:
        return mutate_message(dice, self.samples)
