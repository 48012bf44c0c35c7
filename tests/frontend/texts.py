"""Requests for text as Triton's clients make them."""

import json
from typing import Any

from millrace.oip.inference_pb2 import InferParameter, ModelInferRequest
from millrace.tensors import pack_bytes


def text_request(text: str = "hello", *, settings: Any = None, **fields: Any) -> ModelInferRequest:
    """`settings` go as sampling_parameters."""
    request = ModelInferRequest(model_name="echo", **fields)
    add(request, "text_input", "BYTES", pack_bytes([text.encode()]))
    if settings is not None:
        add(request, "sampling_parameters", "BYTES", pack_bytes([json.dumps(settings).encode()]))
    return request


def add(request: ModelInferRequest, name: str, datatype: str, raw: bytes, shape: tuple[int, ...] = (1,)) -> None:
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    request.raw_input_contents.append(raw)


def flag(request: ModelInferRequest, name: str, value: bool) -> ModelInferRequest:
    add(request, name, "BOOL", bytes([value]))
    return request


def streamed(text: str = "hello", **fields: Any) -> ModelInferRequest:
    return flag(text_request(text, **fields), "stream", True)


def say(request: ModelInferRequest, **parameters: bool | int | str) -> ModelInferRequest:
    """Parameters as tritonclient sends them."""
    for name, value in parameters.items():
        if isinstance(value, bool):
            parameter = InferParameter(bool_param=value)
        elif isinstance(value, int):
            parameter = InferParameter(int64_param=value)
        else:
            parameter = InferParameter(string_param=value)
        request.parameters[name].CopyFrom(parameter)
    return request
