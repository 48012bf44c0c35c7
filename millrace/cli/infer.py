"""`millrace infer`: arrays from .npy files or from JSON in, arrays out.

What is wrong is raised as InvalidRequest, be it the command line or, as the service finds, the request.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from rich.console import Console
from rich.markup import escape

from millrace import InvalidRequest
from millrace.cli.arrays import Array, assigned, load, parse, save, wrong
from millrace.cli.calls import errors
from millrace.cli.service import Service
from millrace.client.tensors import DTYPES, datatype_of
from millrace.oip.inference_pb2 import ModelMetadataResponse
from millrace.tensors import ANY, TensorSpec

Arrays: TypeAlias = dict[str, Array]
TEXT = "text_input"
"""What models that write text take."""
WHOLE = 200
"""Elements up to which an output is printed whole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command line."""

    model: str
    inputs: Sequence[str]
    """NAME=@FILE or NAME=JSON."""
    outputs: Sequence[str]
    """NAME=FILE, or NAME=@FILE."""
    as_json: bool
    stats: bool


async def infer(service: Service, asked: Asked) -> None:
    """Runs the model once, saves and prints what it gives."""
    given, saved = assigned("--input", asked.inputs), assigned("--output", asked.outputs)
    async with service.knocking() as client:
        metadata = await client.model_metadata(asked.model)
    files = _check_files(saved, metadata)
    inputs = read(given, metadata)
    began = time.monotonic()
    async with service.client() as client:
        try:
            outputs = await client.infer(asked.model, inputs)
        except InvalidRequest as error:
            for hint in hints(inputs, given, metadata):
                error.add_note(hint)
            raise
    took_ms = 1000 * (time.monotonic() - began)
    for name, file in files.items():
        save(name, outputs[name], file)
    print_json(asked.model, outputs) if asked.as_json else print_text(outputs)
    if asked.stats:
        errors.print(f"{_size(inputs):,} bytes in, {_size(outputs):,} bytes out, {took_ms:.1f} ms")


def read(given: Mapping[str, str], metadata: ModelMetadataResponse) -> Arrays:
    """The inputs as arrays. Raises InvalidRequest."""
    datatypes = {spec.name: spec.datatype for spec in metadata.inputs}
    if TEXT in datatypes and TEXT not in given:
        raise wrong("--model", f"{metadata.name} writes text: `millrace generate -m {metadata.name}` calls it")
    arrays = {}
    for name, value in given.items():
        if name not in datatypes:
            raise wrong("--input", f"there is no {name!r}; the model takes {', '.join(datatypes)}")
        file = value.removeprefix("@")
        arrays[name] = load(name, Path(file)) if file != value else parse(name, value, datatypes[name])
    return arrays


def hints(inputs: Arrays, given: Mapping[str, str], metadata: ModelMetadataResponse) -> list[str]:
    """What to do about inputs that are not what the model takes."""
    found = []
    for spec in metadata.inputs:
        array = inputs.get(spec.name)
        if array is None:
            continue
        if _lacks_batch(array, spec):
            how = "save array[numpy.newaxis]" if given[spec.name].startswith("@") else "write one more pair of []"
            found.append(f"{spec.name} lacks the batch dimension: {how}, for the shape {[1, *array.shape]}")
        dtype = DTYPES.get(spec.datatype)
        if dtype is not None and array.dtype.newbyteorder("=") != dtype:
            found.append(f"{spec.name} must be converted: save array.astype(numpy.{dtype.name})")
    return found


def _lacks_batch(array: Array, spec: ModelMetadataResponse.TensorMetadata) -> bool:
    one_row = TensorSpec(spec.name, spec.datatype, tuple(spec.shape[1:]))
    return list(spec.shape[:1]) == [ANY] and one_row.fits(array.shape)


def _check_files(saved: Mapping[str, str], metadata: ModelMetadataResponse) -> dict[str, Path]:
    """Where outputs are to be saved. Raises InvalidRequest where that cannot be, before anything is run."""
    names = [spec.name for spec in metadata.outputs]
    files = {name: Path(value.removeprefix("@")) for name, value in saved.items()}
    for name, file in files.items():
        if name not in names:
            raise wrong("--output", f"there is no {name!r}; the model gives {', '.join(names) or 'no tensors'}")
        if not file.parent.is_dir():
            raise wrong(f"--output {name}", f"there is no folder {file.parent}")
    return files


def print_json(model: str, outputs: Arrays) -> None:
    described = {
        name: {"datatype": datatype_of(array), "shape": array.shape, "values": _plain(array.tolist())}
        for name, array in outputs.items()
    }
    print(json.dumps({"model": model, "outputs": described}))


def print_text(outputs: Arrays) -> None:
    console = Console(highlight=False)
    for index, (name, array) in enumerate(outputs.items()):
        console.print("\n" * (index > 0) + f"[bold]{escape(name)}[/bold]  {datatype_of(array)} {list(array.shape)}")
        values = np.array2string(array, threshold=WHOLE, max_line_width=console.width)
        console.print(values, markup=False, soft_wrap=True)


def _plain(value: Any) -> Any:
    """What JSON can say: bytes as text, and floats that are no numbers by their names."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _size(arrays: Arrays) -> int:
    """In bytes; texts and bytes count as pointers."""
    return sum(array.nbytes for array in arrays.values())
