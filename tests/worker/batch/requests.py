"""Requests for the batch engine, and what it makes of them."""

import functools
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from millrace.engine import Output
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse
from millrace.tensors import pack_bytes
from services.worker import repository
from services.worker.batch import BatchEngine
from tests.graphs import write_graph
from tests.worker.steps import leased, step

Array = npt.NDArray[Any]
DATATYPES = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES"} | {
    f"{kind}{bits}": f"{kind}{bits}".upper() for kind in ("int", "uint") for bits in (8, 16, 32, 64)
}
DTYPES = {datatype: np.dtype(name) for name, datatype in DATATYPES.items()}


def engine_of(graph: onnx.ModelProto, device: str = "cpu", **batching: Any) -> BatchEngine:
    """An engine that serves the graph from a repository of its own."""
    folder = write_graph(Path(tempfile.mkdtemp()), "tested", graph, **batching)
    models, broken = repository.scan(folder.parents[1])
    assert not broken
    engine = repository.load(models[0], device, threads=1)
    assert isinstance(engine, BatchEngine)
    return engine


@functools.cache
def shared(build: Callable[[], onnx.ModelProto]) -> BatchEngine:
    """An engine that tests share: each leaves it empty."""
    return engine_of(build())


def request(outputs: Sequence[str] = (), request_id: str = "", **inputs: Array) -> bytes:
    message = ModelInferRequest(model_name="tested", id=request_id)
    for name, array in inputs.items():
        message.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        packed = pack_bytes(list(array.ravel())) if array.dtype == object else array.tobytes()
        message.raw_input_contents.append(packed)
    for name in outputs:
        message.outputs.add(name=name)
    return message.SerializeToString()


def answer(output: Output) -> dict[str, Array]:
    """A response's tensors by name."""
    response = response_of(output)
    return {
        tensor.name: np.frombuffer(raw, DTYPES[tensor.datatype]).reshape(tuple(tensor.shape))
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def response_of(output: Output) -> ModelInferResponse:
    assert output.failure is None, output.failure
    assert callable(output.result)
    response = output.result()
    assert isinstance(response, ModelInferResponse)
    return response


def run(engine: BatchEngine, requests: Mapping[str, bytes]) -> dict[str, Output]:
    """Adds all and steps until all have ended, by lease."""
    for lease, body in requests.items():
        engine.add(leased(lease, body))
    ended: dict[str, Output] = {}
    while len(ended) < len(requests):
        outputs = step(engine)
        assert outputs
        ended |= {output.lease: output for output in outputs}
    assert engine.step() is None
    return ended


def row(*values: float) -> bytes:
    """One row for `affine`."""
    return request(x=np.array([values], np.float32))


class Gate:
    """A session whose runs wait until the gate is opened."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.began, self.opened = threading.Event(), threading.Event()
        self.runs: list[int] = []

    def run(self, names: list[str], feed: dict[str, Any]) -> Any:
        self.runs.append(len(next(iter(feed.values()))))
        self.began.set()
        assert self.opened.wait(10)
        return self._session.run(names, feed)


def gated(engine: BatchEngine) -> Gate:
    gate = Gate(engine._idle.pop())
    engine._idle.append(gate)
    return gate
