"""The client's border to the Open Inference Protocol: arrays become requests, responses become arrays.

It needs numpy, which the rest of the client does without, so it is imported where it is first used.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

from millrace.client.infer import Arrays, Inputs
from millrace.errors import Code, InvalidRequest, MillraceError, Violation
from millrace.oip.inference_pb2 import InferTensorContents, ModelInferRequest, ModelInferResponse
from millrace.tensors import BYTES, pack_bytes, unpack_bytes

try:
    import numpy as np
    import numpy.typing as npt
except ModuleNotFoundError as error:
    raise ImportError("tensors are numpy arrays, and numpy is missing: pip install 'millrace[tensors]'") from error

Array: TypeAlias = "npt.NDArray[Any]"
DATATYPES = {
    "bool": "BOOL",
    "int8": "INT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "uint8": "UINT8",
    "uint16": "UINT16",
    "uint32": "UINT32",
    "uint64": "UINT64",
    "float16": "FP16",
    "bfloat16": "BF16",
    "float32": "FP32",
    "float64": "FP64",
}
"""By numpy's name, whatever the byte order. `bfloat16` is that of ml_dtypes."""
DTYPES = {datatype: np.dtype(name) for name, datatype in DATATYPES.items() if name != "bfloat16"}
TEXTS = "OSUT"
"""numpy's kinds of what may be BYTES: objects, bytes and texts."""


def make_infer_request(
    model: str, inputs: Inputs, outputs: Sequence[str] | None, model_version: str
) -> ModelInferRequest:
    """The request without the parameters that say how its job runs.

    Texts become UTF-8. Raises InvalidRequest, with a violation of `inputs.NAME` for each input that is no tensor.
    """
    request = ModelInferRequest(model_name=model, model_version=model_version)
    violations = []
    for name, value in inputs.items():
        try:
            array = np.asarray(value)
            request.inputs.add(name=name, datatype=datatype_of(array), shape=array.shape)
            request.raw_input_contents.append(_raw(array))
        except ValueError as error:
            violations.append(Violation(f"inputs.{name}", str(error)))
    if violations:
        raise InvalidRequest(violations)
    for name in outputs or ():
        request.outputs.add(name=name)
    return request


def to_arrays(response: ModelInferResponse) -> Arrays:
    """The outputs, writable, in this machine's byte order. BYTES become objects, bytes each; BF16 becomes float32.

    Raises MillraceError where the response is not what the protocol says.
    """
    arrays: Arrays = {}
    for index, output in enumerate(response.outputs):
        try:
            if response.raw_output_contents:
                flat = _from_raw(response.raw_output_contents[index], output.datatype)
            else:
                flat = _from_contents(output.contents, output.datatype)
            arrays[output.name] = flat.reshape(tuple(output.shape))
        except (ValueError, IndexError, KeyError) as error:
            raise _malformed(f"output {output.name}, {output.datatype} {list(output.shape)}: {error}") from error
    return arrays


def datatype_of(array: Array) -> str:
    """The protocol's name. Raises ValueError for a dtype that has none."""
    if array.dtype.kind in TEXTS:
        return BYTES
    if array.dtype.name not in DATATYPES:
        known = ", ".join(DATATYPES)
        raise ValueError(f"arrays of {array.dtype} cannot be sent: convert it to one of {known}, or to texts or bytes")
    return DATATYPES[array.dtype.name]


def _raw(array: Array) -> bytes:
    if array.dtype.kind in TEXTS:
        return pack_bytes([_to_bytes(item) for item in array.ravel().tolist()])
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _to_bytes(item: object) -> bytes:
    if isinstance(item, bytes):
        return item
    if isinstance(item, str):
        return item.encode()
    raise ValueError(f"an array of objects holds texts or bytes, not {type(item).__name__}")


def _from_raw(raw: bytes, datatype: str) -> Array:
    if datatype == BYTES:
        return _objects(unpack_bytes(raw))
    if datatype == "BF16":
        return (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    dtype = DTYPES[datatype]
    return np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype)


def _from_contents(contents: InferTensorContents, datatype: str) -> Array:
    """From the one field that is filled; none is where the tensor is empty."""
    values: Sequence[Any] = next((values for _, values in contents.ListFields()), ())
    return _objects(values) if datatype == BYTES else np.array(values, DTYPES[datatype])


def _objects(items: Sequence[bytes]) -> Array:
    array = np.empty(len(items), np.object_)
    array[:] = items
    return array


def _malformed(message: str) -> MillraceError:
    error = MillraceError(message, reason="ANSWER_MALFORMED")
    error.code = Code.INTERNAL
    return error
