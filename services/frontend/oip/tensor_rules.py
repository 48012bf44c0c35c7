"""What a ModelInferRequest may say: its tensors against those that the model takes and gives, without numpy."""

import math
from collections.abc import Iterable, Mapping, Sequence

from millrace.errors import Violation
from millrace.oip.inference_pb2 import InferParameter, InferTensorContents, ModelInferRequest
from millrace.queue import ModelEntry
from millrace.tensors import BYTES, CONTENTS, ITEM_BYTES, LARGEST_DIMENSION, TensorSpec, unpack_bytes
from services.frontend.rules import Violations

Input = ModelInferRequest.InferInputTensor
NARROW = {"INT8": (-128, 127), "INT16": (-32_768, 32_767), "UINT8": (0, 255), "UINT16": (0, 65_535)}
"""Datatypes that share a wider field, and what they hold."""
MOST_TEXTS, MOST_TYPED = 1 << 16, 1 << 20
"""Elements of BYTES, and of typed contents, which are looked at one by one."""
MOST_OF_NOTHING = 1 << 26
"""Elements of an empty tensor, if its sizes of 0 were 1: they could else ask for padding, or outputs, of any size."""
SHOWN_CHARACTERS, SHOWN_SIZES = 64, 16
"""Of a text, and of a shape, that the caller made up."""
CLASSIFICATION = "classification"
"""A requested output's parameter: so many of the largest elements of each row, as BYTES "value:index:label"."""
SHARED_MEMORY = ("shared_memory_region", "shared_memory_offset", "shared_memory_byte_size")


def check_tensors(request: ModelInferRequest, entry: ModelEntry) -> Violations:
    """All that is wrong with the request's tensors."""
    specs = {spec.name: spec for spec in entry.inputs}
    yield from _check_names("inputs", [tensor.name for tensor in request.inputs], specs)
    for missing in sorted(specs.keys() - {tensor.name for tensor in request.inputs}):
        yield Violation("inputs", f"{missing} is missing")
    outputs = {spec.name: spec for spec in entry.outputs}
    yield from _check_names("outputs", [output.name for output in request.outputs], outputs)
    for index, output in enumerate(request.outputs):
        yield from _check_shared(f"outputs[{index}].parameters", output.parameters)
        if CLASSIFICATION in output.parameters and output.name in outputs:
            field = f"outputs[{index}].parameters[{CLASSIFICATION}]"
            yield from _check_classification(field, output.parameters[CLASSIFICATION], outputs[output.name])
    if request.raw_input_contents and len(request.raw_input_contents) != len(request.inputs):
        count = len(request.raw_input_contents)
        yield Violation(
            "raw_input_contents", f"must have one entry for each of {len(request.inputs)} inputs, has {count}"
        )
        return
    for index, tensor in enumerate(request.inputs):
        if tensor.name in specs:
            yield from _check_input(request, index, tensor, specs[tensor.name])
    if entry.max_batch_size:
        yield from _check_rows(request.inputs, entry.max_batch_size)


def rows(request: ModelInferRequest, entry: ModelEntry) -> int:
    """How many rows a request that was checked has; 1 where the model knows no batch."""
    return request.inputs[0].shape[0] if entry.max_batch_size else 1


def _check_names(field: str, names: Sequence[str], known: Iterable[str]) -> Violations:
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name not in known:
            text = f"there is no {name[:SHOWN_CHARACTERS]!r}; the model has {', '.join(known)}"
            yield Violation(f"{field}[{index}].name", text)
        elif name in seen:
            yield Violation(f"{field}[{index}].name", f"{name} is there twice")
        seen.add(name)


def _check_shared(field: str, parameters: Mapping[str, InferParameter]) -> Violations:
    """Other parameters of tensors are ignored, among them those that mean something over HTTP."""
    for name in SHARED_MEMORY:
        if name in parameters:
            yield Violation(f"{field}[{name}]", "is not supported: frontends and workers are different machines")


def _check_classification(field: str, parameter: InferParameter, spec: TensorSpec) -> Violations:
    if spec.datatype == BYTES:
        yield Violation(field, f"is for numbers: {spec.name} is a tensor of BYTES")
    elif parameter.WhichOneof("parameter_choice") != "int64_param" or parameter.int64_param < 1:
        yield Violation(field, "must be an int64, 1 or more")


def _check_input(request: ModelInferRequest, index: int, tensor: Input, spec: TensorSpec) -> Violations:
    field = f"inputs[{index}]"
    yield from _check_shared(f"{field}.parameters", tensor.parameters)
    if tensor.datatype != spec.datatype:
        given = tensor.datatype[:SHOWN_CHARACTERS] or "nothing"
        yield Violation(f"{field}.datatype", f"{spec.name} takes {spec.datatype}, not {given}")
    if len(tensor.shape) != len(spec.shape):
        shown = list(tensor.shape) if len(tensor.shape) <= SHOWN_SIZES else f"{len(tensor.shape)} sizes"
        yield Violation(f"{field}.shape", f"{spec.name} takes {list(spec.shape)}, not {shown}")
        return
    shape = tuple(tensor.shape)
    if any(not 0 <= size <= LARGEST_DIMENSION for size in shape):
        yield Violation(f"{field}.shape", f"must have sizes from 0 to {LARGEST_DIMENSION}")
    elif not spec.fits(shape):
        yield Violation(f"{field}.shape", f"{spec.name} takes {list(spec.shape)}, not {list(shape)}")
    elif 0 in shape and math.prod(size or 1 for size in shape) > MOST_OF_NOTHING:
        yield Violation(f"{field}.shape", f"must say at most {MOST_OF_NOTHING} elements, even with each 0 taken for 1")
    elif spec.datatype == BYTES and math.prod(shape) > MOST_TEXTS:
        yield Violation(f"{field}.shape", f"a tensor of BYTES has at most {MOST_TEXTS} elements")
    elif tensor.datatype != spec.datatype:
        return
    elif not request.raw_input_contents:
        yield from _check_contents(f"{field}.contents", tensor.contents, spec.datatype, math.prod(shape))
    elif tensor.contents.ByteSize():
        yield Violation(f"{field}.contents", "must be unset where raw_input_contents is filled")
    else:
        yield from _check_raw(
            f"raw_input_contents[{index}]", request.raw_input_contents[index], spec.datatype, math.prod(shape)
        )


def _check_raw(field: str, raw: bytes, datatype: str, elements: int) -> Violations:
    if datatype != BYTES:
        if len(raw) != elements * ITEM_BYTES[datatype]:
            size = elements * ITEM_BYTES[datatype]
            yield Violation(field, f"must have {size} bytes for {elements} elements of {datatype}, has {len(raw)}")
        return
    try:
        count = len(unpack_bytes(raw))
    except ValueError as error:
        yield Violation(field, str(error))
        return
    if count != elements:
        yield Violation(field, f"must have {elements} elements, has {count}")


def _check_contents(field: str, contents: InferTensorContents, datatype: str, elements: int) -> Violations:
    own = CONTENTS.get(datatype)
    if own is None:
        yield Violation(field, f"{datatype} has none: send raw_input_contents")
        return
    filled = [descriptor.name for descriptor, _ in contents.ListFields()]
    if wrong := [name for name in filled if name != own]:
        yield Violation(f"{field}.{wrong[0]}", f"must be empty: {datatype} is sent as {own}")
        return
    values = getattr(contents, own)
    if len(values) > MOST_TYPED:
        yield Violation(f"{field}.{own}", f"has more than {MOST_TYPED} elements: send raw_input_contents")
    elif len(values) != elements:
        yield Violation(f"{field}.{own}", f"must have {elements} elements, has {len(values)}")
    elif datatype in NARROW and values:
        least, most = NARROW[datatype]
        if min(values) < least or max(values) > most:
            yield Violation(f"{field}.{own}", f"must be from {least} to {most} for {datatype}")


def _check_rows(inputs: Sequence[Input], max_batch_size: int) -> Violations:
    counts = {tensor.shape[0] for tensor in inputs if tensor.shape}
    if len(counts) > 1:
        yield Violation("inputs", f"must all have the same number of rows, not {sorted(counts)}")
    elif any(not 1 <= count <= max_batch_size for count in counts):
        yield Violation("inputs", f"must have 1 to {max_batch_size} rows")
