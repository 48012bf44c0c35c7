"""The worker's border to the Open Inference Protocol: requests become arrays, arrays become responses."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from google.protobuf.message import DecodeError

from millrace.engine import Work
from millrace.oip.inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse
from millrace.tensors import BYTES, CONTENTS, MOST_CLASSES, pack_bytes, unpack_bytes
from services.worker.batch.bfloat16 import from_bits, to_bits
from services.worker.batch.classes import classify
from services.worker.batch.graph import BF16, Array, Feed, Port, Ports
from services.worker.batch.processor import Part, Rejected

CLASSIFICATION = "classification"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request(Part):
    """A ModelInferRequest."""

    request_id: str
    classes: Mapping[str, int]
    """By output: how many of its largest values are asked for instead of it."""


class Tensors:
    """Implements `Processor` for ModelInferRequests: the graph's own inputs and outputs."""

    def __init__(
        self, model: str, version: str, ports: Ports, labels: Mapping[str, Sequence[str]] = MappingProxyType({})
    ) -> None:
        """`labels`: what the values of an output are called, by its name."""
        self._model, self._version, self._ports, self._labels = model, version, ports, labels

    def parts(self, work: Work) -> Iterator[Request]:
        if not work.results:
            yield decode(work.request, self._ports)

    def respond(self, part: Part, outputs: Sequence[tuple[Port, Array]]) -> ModelInferResponse:
        assert isinstance(part, Request)
        response = ModelInferResponse(model_name=self._model, model_version=self._version, id=part.request_id)
        for port, array in outputs:
            datatype = port.datatype
            if (count := part.classes.get(port.name)) is not None:
                labels = self._labels.get(port.name, ())
                datatype, array = BYTES, classify(array, count, labels, batched=self._ports.batched)
            response.outputs.add(name=port.name, datatype=datatype, shape=array.shape)
            response.raw_output_contents.append(_raw(datatype, array))
        return response


def decode(body: bytes, ports: Ports) -> Request:
    """The arrays share the request's memory where they can. Raises Rejected.

    The frontend has checked the request against the model's signature; this checks what only the graph knows, and all
    that would otherwise fail inside numpy.
    """
    try:
        request = ModelInferRequest.FromString(body)
    except DecodeError:
        raise Rejected("", "the request is not a ModelInferRequest") from None
    given = {tensor.name: index for index, tensor in enumerate(request.inputs)}
    feed: Feed = {}
    sizes: dict[str, int] = {}
    for port in ports.inputs:
        if port.name not in given:
            raise Rejected("inputs", f"{port.name} is missing")
        index = given[port.name]
        feed[port.name] = _array(request, index, port)
        _note_sizes(port, feed[port.name].shape, f"inputs[{index}].shape", sizes)
    wanted = frozenset(output.name for output in request.outputs)
    if unknown := wanted - {port.name for port in ports.outputs}:
        raise Rejected("outputs", f"there is no output {min(unknown)}")
    return Request(request_id=request.id, feed=feed, wanted=wanted, sizes=sizes, classes=_classes(request, ports))


def _classes(request: ModelInferRequest, ports: Ports) -> dict[str, int]:
    numbers = {port.name for port in ports.outputs if port.datatype != BYTES}
    classes = {}
    for index, output in enumerate(request.outputs):
        if CLASSIFICATION in output.parameters:
            count = classes[output.name] = output.parameters[CLASSIFICATION].int64_param
            if not 1 <= count <= MOST_CLASSES or output.name not in numbers:
                field = f"outputs[{index}].parameters[{CLASSIFICATION}]"
                raise Rejected(field, f"must be from 1 to {MOST_CLASSES}, of a tensor of numbers")
    return classes


def _array(request: ModelInferRequest, index: int, port: Port) -> Array:
    tensor = request.inputs[index]
    if tensor.datatype != port.datatype:
        raise Rejected(f"inputs[{index}].datatype", f"{port.name} takes {port.datatype}")
    if any(size < 0 for size in tensor.shape):
        raise Rejected(f"inputs[{index}].shape", "must not be negative")
    try:
        if request.raw_input_contents:
            flat = _from_raw(request.raw_input_contents[index], port)
        else:
            flat = _from_contents(tensor.contents, port)
        return flat.reshape(tuple(tensor.shape))
    except (ValueError, OverflowError, IndexError) as error:
        raise Rejected(f"inputs[{index}]", f"{port.name}: {error}") from None


def _from_raw(raw: bytes, port: Port) -> Array:
    if port.datatype == BYTES:
        return _texts(unpack_bytes(raw))
    if port.datatype == "BOOL":
        return np.frombuffer(raw, np.uint8).astype(np.bool_)
    if port.datatype == BF16:
        return from_bits(raw)
    return np.frombuffer(raw, port.dtype.newbyteorder("<"))


def _from_contents(contents: InferTensorContents, port: Port) -> Array:
    if port.datatype not in CONTENTS:
        raise ValueError(f"{port.datatype} has no typed contents: send raw_input_contents")
    values = getattr(contents, CONTENTS[port.datatype])
    return _texts(values) if port.datatype == BYTES else np.array(values, port.dtype)


def _texts(items: Sequence[bytes]) -> Array:
    """ONNX's strings are UTF-8."""
    array = np.empty(len(items), np.object_)
    array[:] = [item.decode() for item in items]
    return array


def _note_sizes(port: Port, shape: Sequence[int], field: str, sizes: dict[str, int]) -> None:
    if len(shape) != len(port.dims):
        raise Rejected(field, f"{port.name} has {len(port.dims)} dimensions")
    for wanted, size in zip(port.dims, shape, strict=True):
        expected = sizes.setdefault(wanted, size) if isinstance(wanted, str) else wanted
        if size != expected:
            raise Rejected(field, f"{port.name} must have {expected} where it has {size}, as the other inputs")


def _raw(datatype: str, array: Array) -> bytes:
    if datatype == BF16:
        return to_bits(array)
    if datatype == BYTES:
        return pack_bytes([item.encode() if isinstance(item, str) else bytes(item) for item in array.ravel()])
    return array.tobytes()
