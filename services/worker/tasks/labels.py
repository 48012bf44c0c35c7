"""Scores → named labels, best first: model.yaml's `classes` → `ClassFields`, and with it the names → `Labels`.

    classes: {output: logits, scores: softmax}
    labels: {logits: labels.txt}

Names are the lines of the file that `labels` gives for the output; else those of `id2label` in a config.json, which
Hugging Face's transformers writes beside its models; else the labels' numbers, from 0.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from google.protobuf.message import DecodeError
from pydantic import Field, ValidationError

from millrace.engine import EngineContext
from millrace.v1.tasks_pb2 import ClassifyRequest, ClassifyResponse
from services.worker import untrusted
from services.worker.batch.graph import Array, Port, Ports
from services.worker.batch.processor import Failed, Rejected
from services.worker.repository.model_file import Frozen, problems

Scores = Literal["softmax", "sigmoid", "none"]
FLOATS = ("FP32", "FP16", "FP64", "BF16")
FILE_BYTES = 8 << 20
TRANSFORMERS_FILE = "config.json"


class ClassFields(Frozen):
    """`classes` of model.yaml."""

    output: str | None = Field(default=None, description="None: the graph's only one of floats [rows, labels]")
    scores: Scores | None = Field(
        default=None,
        description="what makes probabilities of the output: softmax where one label is right, sigmoid where several "
        "may be, none where it has probabilities already; None: as config.json says, else softmax",
    )


class Labels:
    """What a graph's scores stand for."""

    def __init__(self, names: Sequence[str], scores: Scores = "softmax") -> None:
        """Labels beyond the names are called by their numbers."""
        self._names, self._probabilities = names, PROBABILITIES[scores]

    def respond(self, scores: Array, top_k: int = 0) -> ClassifyResponse:
        """Of one row's scores [labels], the `top_k` best ones, of equals the first; 0: all. Raises Failed where one is
        not a number."""
        with np.errstate(all="ignore"):
            found = self._probabilities(scores.astype(np.float64))
        if np.isnan(found).any():
            raise Failed("the model's scores are not finite")
        best = np.argsort(-found, kind="stable")[: top_k or None]
        response = ClassifyResponse()
        for index, score in zip(best.tolist(), found[best].tolist(), strict=True):
            response.labels.add(name=self._name(index), score=score)
        return response

    def _name(self, index: int) -> str:
        return self._names[index] if index < len(self._names) else str(index)


def parse(body: bytes, kind: Literal["text", "image"]) -> ClassifyRequest:
    """A request with this kind of input. Raises Rejected."""
    try:
        request = ClassifyRequest.FromString(body)
    except DecodeError:
        raise Rejected("", "the request is not a ClassifyRequest") from None
    if (given := request.WhichOneof("input")) != kind:
        raise Rejected("input", f"must be {kind}, which the model labels, not {given or 'left out'}")
    return request


def read(context: EngineContext, output: Port) -> Labels:
    """The labels of an output [rows, labels]. Raises ValueError, naming the key that is wrong."""
    transformers = _read_transformers(context.folder)
    names = _names(context, output.name, transformers)
    size = output.dims[-1]
    if names and isinstance(size, int) and size != len(names):
        raise ValueError(f"labels.{output.name}: the graph has {size}, and {len(names)} are named")
    several = transformers.get("problem_type") == "multi_label_classification"
    return Labels(names, read_fields(context.config).scores or ("sigmoid" if several else "softmax"))


def read_fields(config: Mapping[str, Any]) -> ClassFields:
    """Of model.yaml's content. Raises ValueError, naming the key."""
    try:
        return ClassFields.model_validate(config["classes"])
    except ValidationError as error:
        raise ValueError(f"classes.{problems(error).replace('; ', '; classes.')}") from None


def find(config: Mapping[str, Any], ports: Ports) -> Port:
    """The output that has the scores. Raises ValueError."""
    name = read_fields(config).output
    fitting = [port for port in ports.outputs if port.datatype in FLOATS and len(port.dims) == 2]
    found = [port for port in fitting if name in (None, port.name)]
    if len(found) != 1:
        names = ", ".join(port.name for port in fitting) or "none"
        raise ValueError(f"classes.output: name one of the graph's outputs of floats [rows, labels]: {names}")
    return found[0]


def _names(context: EngineContext, output: str, transformers: Mapping[str, Any]) -> list[str]:
    if output in context.config["labels"]:
        return untrusted.read_lines(context.folder / context.config["labels"][output], FILE_BYTES)
    by_number = transformers.get("id2label") or {}
    if not isinstance(by_number, dict):
        raise ValueError(f"{TRANSFORMERS_FILE}: id2label holds no labels")
    names = [by_number.get(str(number)) for number in range(len(by_number))]
    if not all(isinstance(name, str) for name in names):
        raise ValueError(f"{TRANSFORMERS_FILE}: id2label does not name the labels from 0 to {len(names) - 1}")
    return list(map(str, names))


def _read_transformers(folder: Path) -> Mapping[str, Any]:
    """config.json; empty where there is none."""
    if not untrusted.plain_file(folder / TRANSFORMERS_FILE):
        return {}
    read = untrusted.read_json(folder / TRANSFORMERS_FILE)
    return read if isinstance(read, dict) else {}


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(initial=-np.inf))
    return np.asarray(powers / powers.sum())


def _sigmoid(scores: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-scores)))


def _clip(scores: Array) -> Array:
    """Rounding may have taken probabilities out of [0, 1]."""
    return scores.clip(0, 1)


PROBABILITIES: dict[Scores, Callable[[Array], Array]] = {"softmax": _softmax, "sigmoid": _sigmoid, "none": _clip}
