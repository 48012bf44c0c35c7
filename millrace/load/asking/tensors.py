"""Tensors: requests of arrays that are given, or drawn to fit what the model takes; encoded once and sent in turn."""

from collections.abc import Mapping
from pathlib import Path
from random import Random
from typing import Any

import grpc.aio

from millrace.client.infer import set_job
from millrace.client.tensors import DTYPES, Array, datatype_of, make_infer_request, to_arrays
from millrace.errors import MillraceError
from millrace.load.asking.sending import RESUME_WINDOW_S, Answering, Received, Turns
from millrace.load.asking.verify import TOLERANCE
from millrace.load.scenario import Scenario
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse, ModelMetadataResponse
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.tensors import BYTES

try:
    import numpy as np
except ModuleNotFoundError as error:
    raise ImportError("tensors need numpy: pip install 'millrace[tensors]'") from error

VARIANTS = 8
"""Different requests where values are drawn."""
FREE = 8
"""What a dimension of any size gets, but for the first one."""
MOST_ELEMENTS = 1 << 24
TensorMetadata = ModelMetadataResponse.TensorMetadata


def inferring(scenario: Scenario, model: ModelMetadataResponse) -> Answering:
    """Raises ValueError for inputs that the model does not take or that cannot be read."""
    given, known = scenario.requests.inputs, {tensor.name: tensor for tensor in model.inputs}
    if unknown := [name for name in given if name not in known]:
        raise ValueError(f"requests.inputs: {scenario.model} takes no {unknown[0]}, but {', '.join(known)}")
    fixed = {name: _given(known[name], value) for name, value in given.items() if not isinstance(value, Mapping)}
    shapes = {name: _shape(tensor, given.get(name), scenario.requests.rows) for name, tensor in known.items()}
    variants = 1 if len(fixed) == len(known) else VARIANTS
    requests = []
    for variant in range(variants):
        draw = np.random.default_rng(Random(f"{scenario.seed} tensors {variant}").getrandbits(64))
        drawn = {name: _draw(known[name], shapes[name], draw) for name in known if name not in fixed}
        requests.append(_request(scenario, {name: (fixed | drawn)[name] for name in known}))
    turns, received = Turns(requests), Received(_rows(model, requests[0]))
    return Answering(
        prepare=turns.prepare,
        name=lambda request, job_id: _name(request, job_id, scenario),
        method=_method,
        count=lambda message: received,
        variants=variants,
        same=_same,
    )


def _request(scenario: Scenario, inputs: Mapping[str, Array]) -> ModelInferRequest:
    try:
        request = make_infer_request(scenario.model, inputs, None, scenario.model_version)
    except MillraceError as error:
        raise ValueError(f"requests.{error.message}") from error
    _set_job(request, None, scenario)
    return request


def _name(request: ModelInferRequest, job_id: str, scenario: Scenario) -> ModelInferRequest:
    named = ModelInferRequest()
    named.CopyFrom(request)
    _set_job(named, job_id, scenario)
    return named


def _set_job(request: ModelInferRequest, job_id: str | None, scenario: Scenario) -> None:
    set_job(
        request,
        job_id=job_id,
        resume_window_s=RESUME_WINDOW_S if scenario.resume else 0,
        timeout_s=scenario.requests.timeout_s,
        priority=scenario.requests.priority,
    )


def _rows(model: ModelMetadataResponse, request: ModelInferRequest) -> int:
    """Of a batch, what its first input says; else 1."""
    first = next(iter(model.inputs), None)
    return request.inputs[0].shape[0] if first is not None and first.shape and first.shape[0] == -1 else 1


def _given(tensor: TensorMetadata, value: Any) -> Array:
    """A .npy file, or nested lists in the model's own datatype."""
    try:
        if isinstance(value, str):
            array: Array = np.load(Path(value), allow_pickle=False)
        else:
            array = np.asarray(value, object if tensor.datatype == BYTES else _dtype(tensor))
        if (datatype := datatype_of(array)) != tensor.datatype:
            raise ValueError(f"{value} holds {datatype}, the model takes {tensor.datatype}")
    except (OSError, ValueError, TypeError, OverflowError) as error:
        raise ValueError(f"requests.inputs.{tensor.name}: {error}") from error
    return array


def _shape(tensor: TensorMetadata, value: Any, rows: int) -> tuple[int, ...]:
    """As {shape: […]} says, or as the model takes it."""
    if not isinstance(value, Mapping):
        sizes = [size if size >= 0 else FREE for size in tensor.shape]
        return (rows, *sizes[1:]) if tensor.shape and tensor.shape[0] == -1 else tuple(sizes)
    shape = value.get("shape")
    valid = isinstance(shape, list) and all(isinstance(size, int) and size >= 0 for size in shape)
    if set(value) != {"shape"} or not valid:
        raise ValueError(f"requests.inputs.{tensor.name}: {dict(value)} must be {{shape: [2, 3]}}")
    return tuple(shape or ())


def _draw(tensor: TensorMetadata, shape: tuple[int, ...], draw: np.random.Generator) -> Array:
    """Numbers from 0 to 1, whole ones from 0 to 9, words."""
    if np.prod(shape, dtype=object) > MOST_ELEMENTS:
        raise ValueError(f"requests.inputs.{tensor.name}: {list(shape)} is more than {MOST_ELEMENTS} elements")
    if tensor.datatype == BYTES:
        return draw.integers(0, 1000, shape).astype(str).astype(object)
    dtype = _dtype(tensor)
    if dtype.kind == "b":
        return draw.integers(0, 2, shape).astype(dtype)
    return (draw.integers(0, 10, shape) if dtype.kind in "iu" else draw.random(shape)).astype(dtype)


def _dtype(tensor: TensorMetadata) -> "np.dtype[Any]":
    if tensor.datatype not in DTYPES:
        raise ValueError(f"requests.inputs.{tensor.name}: {tensor.datatype} needs a .npy file of it")
    return DTYPES[tensor.datatype]


def _method(channel: grpc.aio.Channel) -> Any:
    return GRPCInferenceServiceStub(channel).ModelInfer


def _same(first: ModelInferResponse, later: ModelInferResponse) -> bool:
    if first.raw_output_contents == later.raw_output_contents and first.outputs == later.outputs:
        return True
    one, other = to_arrays(first), to_arrays(later)
    return one.keys() == other.keys() and all(_close(one[name], other[name]) for name in one)


def _close(one: Array, other: Array) -> bool:
    """Floating-point numbers may differ in their last bits by what else was in the batch."""
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.dtype.kind != "f":
        return bool((one == other).all())
    largest = np.abs(one[np.isfinite(one)]).max(initial=0.0)
    return bool(np.allclose(other, one, rtol=0, atol=TOLERANCE * largest, equal_nan=True))
