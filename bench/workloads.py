"""What is asked of the models for tensors: inputs by a seed, as arrays and as requests on the wire."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.models import bert, echo, resnet
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse

Array = npt.NDArray[Any]
Feed = dict[str, Array]
DATATYPES = {"int64": "INT64", "float32": "FP32"}
ROWS = 64
"""Different rows of a workload, each of which is one request."""
TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A model and the size of a row."""

    name: str
    model: str
    size: int
    """Tokens of a text, or numbers of an echo; a picture's is its model's."""
    aim: float | None = None
    """The share of the bare runtime's rows a second that the service is to give."""
    peers: dict[str, float] = field(default_factory=dict)
    """Other servers' shares."""


MINILM_32 = Workload(
    name="minilm, 32 tokens",
    model="minilm",
    size=32,
    aim=0.90,
    peers={
        "mosec": 0.90,
        "Triton": 0.85,
        "PyTriton": 0.72,
        "LitServe": 0.65,
        "BentoML": 0.60,
        "KServe": 0.46,
        "MLServer": 0.43,
        "Ray Serve": 0.32,
    },
)
MINILM_128 = Workload(
    name="minilm, 128 tokens",
    model="minilm",
    size=128,
    aim=0.90,
    peers={
        "mosec": 0.83,
        "Triton": 0.89,
        "PyTriton": 0.86,
        "LitServe": 0.82,
        "BentoML": 0.72,
        "KServe": 0.80,
        "MLServer": 0.78,
        "Ray Serve": 0.67,
    },
)
RESNET = Workload(
    name="resnet50",
    model="resnet50",
    size=224,
    aim=0.95,
    peers={
        "mosec": 0.96,
        "Triton": 0.92,
        "PyTriton": 0.88,
        "LitServe": 0.87,
        "BentoML": 0.57,
        "KServe": 0.86,
        "MLServer": 0.69,
        "Ray Serve": 0.65,
    },
)
TENSORS = (MINILM_32, MINILM_128, RESNET)


def make_feed(workload: Workload, rows: int = ROWS, seed: int = 0) -> Feed:
    """Inputs of so many rows, each different."""
    random = np.random.default_rng(seed)
    if workload.model == "minilm":
        shape = (rows, workload.size)
        ids = random.integers(1000, bert.Bert().vocabulary, shape)
        return dict(zip(bert.INPUTS, (ids, np.ones(shape, np.int64), np.zeros(shape, np.int64)), strict=True))
    if workload.model == "resnet50":
        return {resnet.INPUT: random.standard_normal((rows, 3, workload.size, workload.size), np.float32)}
    return {echo.INPUT: random.standard_normal((rows, workload.size), np.float32)}


def make_requests(workload: Workload, feed: Feed) -> list[bytes]:
    """Each row as a ModelInferRequest."""
    rows = len(next(iter(feed.values())))
    return [
        _serialise(workload.model, {name: array[row : row + 1] for name, array in feed.items()}) for row in range(rows)
    ]


def read_answer(answer: bytes) -> Array:
    """The first output of a ModelInferResponse, which is of floats."""
    response = ModelInferResponse.FromString(answer)
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(response.outputs[0].shape)


def check_answers(answers: Sequence[bytes], expected: Array) -> int:
    """Compares each answer that there is with the same row of the bare runtime's output; answers how many there were.
    Raises ValueError where one differs, or there is none."""
    checked = 0
    for row, answer in enumerate(answers):
        if answer:
            found = read_answer(answer)[0]
            if not np.allclose(found, expected[row], rtol=TOLERANCE, atol=TOLERANCE):
                raise ValueError(
                    f"answer {row} differs by {np.abs(found - expected[row]).max():.2g} from the bare runtime's"
                )
            checked += 1
    if not checked:
        raise ValueError("there was no answer to compare")
    return checked


def _serialise(model: str, feed: Feed) -> bytes:
    request = ModelInferRequest(model_name=model)
    for name, array in feed.items():
        request.inputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request.SerializeToString()
