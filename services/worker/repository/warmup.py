"""Requests that a model answers before it is served: the key `warmup` of model.yaml.

Each is the task of a SubmitJobRequest, in the names of its JSON: `{generate: {text: "def f("}}`. Tensors need no
contents: an input without any gets zeros, or empty texts.
"""

import math
import struct
import time
from dataclasses import dataclass
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from millrace.engine import Engine, Output, Work
from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.tensors import BYTES, CONTENTS, FORMATS, ITEM_BYTES, LENGTH_BYTES, pack_bytes
from millrace.v1.job_service_pb2 import SubmitJobRequest
from services.worker.repository.model import Model
from services.worker.repository.model_file import ModelFile

LIMIT_S = 60.0
"""For all requests of a model."""
MOST_BYTES = 64 << 20
"""Of zeros that one request gets."""
Input = ModelInferRequest.InferInputTensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Warmup:
    """One request, and its kind as `Work.task` names it."""

    task: str
    request: Message


def requests(file: ModelFile, version: str) -> list[Warmup]:
    """What model.yaml asks for, addressed to this version. Raises ValueError that names the request which is wrong."""
    found = []
    for index, written in enumerate(file.warmup):
        try:
            found.append(_read(written, file.name, version))
        except ValueError as error:
            raise ValueError(f"warmup[{index}]: {error}") from None
    return found


def warm(engine: Engine, model: Model, limit_s: float = LIMIT_S) -> None:
    """Has the engine, which nobody else steps, answer them one after the other. Raises ValueError where one fails or
    has no end in time; a single step is waited for, however long it takes."""
    until = time.monotonic() + limit_s
    tasks = engine.signature.tasks or (("infer",) if engine.signature.outputs else ("generate",))
    for index, warmup in enumerate(requests(model.file, model.version)):
        name = f"warmup[{index}]"
        if warmup.task not in tasks:
            raise ValueError(f"{name}: the model answers {', '.join(tasks)}, and not {warmup.task}")
        if isinstance(warmup.request, ModelInferRequest):
            _fill(warmup.request, name)
        body = warmup.request.SerializeToString()
        engine.add(Work(lease=name, job=f"{name} of {model.name}", request=body, task=warmup.task))
        _finish(engine, name, until, limit_s)


def _finish(engine: Engine, name: str, until: float, limit_s: float) -> None:
    while time.monotonic() < until:
        outputs = engine.step()
        if outputs is None:
            raise ValueError(f"{name}: the engine rests before the request's end")
        for output in outputs:
            _check(output, name)
            if output.last:
                return
    raise ValueError(f"{name}: no end within {limit_s:g} s")


def _check(output: Output, name: str) -> None:
    if output.failure is not None:
        field = f"{output.failure.field}: " if output.failure.field else ""
        raise ValueError(f"{name}: {field}{output.failure.message}")
    if callable(output.result):
        output.result()


def _read(written: dict[str, Any], name: str, version: str) -> Warmup:
    try:
        submitted = json_format.ParseDict(written, SubmitJobRequest())
    except (json_format.ParseError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(str(error) or type(error).__name__) from None
    task = submitted.WhichOneof("task")
    if task is None or submitted.HasField("job"):
        raise ValueError(f"holds one of {', '.join(_tasks())}, and nothing else")
    request: Message = getattr(submitted, task)
    if any(field.name == "job" for field, _ in request.ListFields()):
        raise ValueError(f"{task}.job: nobody waits for this request")
    _address(request, "model_name" if task == "infer" else "model", name)
    _address(request, "model_version", version)
    if isinstance(request, ModelInferRequest):
        _check_sizes(request)
    return Warmup(task=task, request=request)


def _tasks() -> list[str]:
    return [field.name for field in SubmitJobRequest.DESCRIPTOR.oneofs_by_name["task"].fields]


def _address(request: Message, field: str, value: str) -> None:
    if getattr(request, field) not in ("", value):
        raise ValueError(f"{field}: {getattr(request, field)!r} is another model than this one, {value!r}")
    setattr(request, field, value)


def _check_sizes(request: ModelInferRequest) -> None:
    if request.raw_input_contents:
        return
    for index, tensor in enumerate(request.inputs):
        if tensor.datatype != BYTES and tensor.datatype not in ITEM_BYTES:
            raise ValueError(f"infer.inputs[{index}].datatype: there is no {tensor.datatype!r}")
        if any(size < 0 for size in tensor.shape):
            raise ValueError(f"infer.inputs[{index}].shape: must not be negative")
    if sum(map(_zero_bytes, request.inputs)) > MOST_BYTES:
        raise ValueError(f"infer.inputs: more than {MOST_BYTES} bytes of zeros")


def _zero_bytes(tensor: Input) -> int:
    return math.prod(tensor.shape) * ITEM_BYTES.get(tensor.datatype, LENGTH_BYTES)


def _fill(request: ModelInferRequest, name: str) -> None:
    """Makes all contents raw, unless they are: of a request's inputs either all are, or none."""
    if not request.raw_input_contents:
        for index, tensor in enumerate(request.inputs):
            request.raw_input_contents.append(_raw(tensor, f"{name}: infer.inputs[{index}]"))
            tensor.ClearField("contents")


def _raw(tensor: Input, field: str) -> bytes:
    values = list(getattr(tensor.contents, CONTENTS[tensor.datatype])) if tensor.datatype in CONTENTS else []
    if not values:
        return bytes(_zero_bytes(tensor))
    if tensor.datatype == BYTES:
        return pack_bytes(values)
    try:
        return struct.pack(f"<{len(values)}{FORMATS[tensor.datatype]}", *values)
    except struct.error as error:
        raise ValueError(f"{field}.contents: {error}") from None
