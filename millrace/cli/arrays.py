"""Arrays on the command line: NAME=@FILE.npy and NAME=JSON in, NAME=FILE.npy out.

What is wrong with them is raised as InvalidRequest, whose fields are the options.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from millrace import InvalidRequest, Violation
from millrace.client.tensors import DTYPES
from millrace.tensors import BYTES

Array: TypeAlias = npt.NDArray[Any]
NPY, ZIP = b"\x93NUMPY", b"PK"
EXAMPLES = {"--input": "x=@images.npy or x='[[1, 2]]'", "--output": "probabilities=p.npy"}


def assigned(option: str, texts: Sequence[str]) -> dict[str, str]:
    """What each name is to be. Raises InvalidRequest."""
    pairs: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise wrong(option, f"{text!r} must be NAME=VALUE, as in {EXAMPLES[option]}")
        if name in pairs:
            raise wrong(option, f"{name} is there twice")
        pairs[name] = value
    return pairs


def load(name: str, file: Path) -> Array:
    """A .npy file's array. Raises InvalidRequest."""
    option = f"--input {name}"
    try:
        with file.open("rb") as opened:
            magic = opened.read(len(NPY))
            opened.seek(0)
            if magic == NPY:
                array: Array = np.load(opened, allow_pickle=False)
                return array
    except OSError as error:
        raise wrong(option, f"{file} cannot be read: {error.strerror or error}") from error
    except (ValueError, EOFError) as error:
        raise wrong(option, f"{file} holds no plain array ({error}): save texts with dtype 'U' or 'S'") from error
    if magic.startswith(ZIP):
        raise wrong(option, f"{file} is an archive of arrays: save the one to send with numpy.save")
    raise wrong(option, f"{file} is not a .npy file: write one with numpy.save")


def parse(name: str, text: str, datatype: str) -> Array:
    """JSON as an array of what the model takes. Raises InvalidRequest where that would change a value."""
    option = f"--input {name}"
    try:
        value = json.loads(text)
    except ValueError as error:
        raise wrong(
            option, f"{text!r} is neither @FILE nor JSON ({error}); quote it for the shell, as in {name}='[[1, 2]]'"
        ) from error
    try:
        return _texts(value) if datatype == BYTES else _numbers(value, datatype)
    except ValueError as error:
        raise wrong(option, str(error)) from error


def _texts(value: object) -> Array:
    array = np.array(value, np.object_)
    if not all(isinstance(item, str) for item in array.ravel()):
        raise ValueError("must hold texts, in lists of equal lengths")
    return array


def _numbers(value: object, datatype: str) -> Array:
    if datatype not in DTYPES:
        raise ValueError(f"{datatype} cannot be written as JSON: use @FILE")
    array, dtype = _even(value), DTYPES[datatype]
    kinds, what = ("b", "true or false") if dtype.kind == "b" else ("iuf", "numbers")
    if array.size and array.dtype.kind not in kinds:
        raise ValueError(f"must hold {what}: the model takes {datatype}")
    with np.errstate(all="ignore"):
        cast = array.astype(dtype)
    if dtype.kind in "iu" and (changed := array[cast != array]).size:
        raise ValueError(f"{changed[0]} does not fit: the model takes {datatype}")
    return cast


def _even(value: object) -> Array:
    try:
        return np.array(value)
    except ValueError as error:
        raise ValueError("lists beside each other must have equal lengths") from error


def save(name: str, array: Array, file: Path) -> None:
    """Texts and bytes are saved as numpy's bytes, which end before trailing zeros. Raises InvalidRequest."""
    try:
        with file.open("wb") as opened:
            np.save(opened, array.astype(np.bytes_) if array.dtype.kind == "O" else array, allow_pickle=False)
    except OSError as error:
        raise wrong(f"--output {name}", f"{file} cannot be written: {error.strerror or error}") from error


def wrong(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([Violation(field, description)])
