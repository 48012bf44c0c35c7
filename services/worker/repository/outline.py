"""An ONNX file without its weights: all of the graph but the elements of tensors.

A file has up to 2 GB, and nearly all of it is what nobody needs who asks which operators and files a graph wants.
Protobuf reads a file whole; here, what is long is gone through field by field, elements are skipped over, and what is
left is parsed. The encoding: https://protobuf.dev/programming-guides/encoding/
"""

from io import BufferedReader
from pathlib import Path
from typing import cast

import onnx
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

FILE_BYTES = 1 << 31
"""Protobuf has no longer messages."""
SHORT_BYTES = 4 << 10
"""A message that is not longer is taken as it is."""
OUTLINE_BYTES = 64 << 20
MOST_FIELDS = 1 << 21
"""That are looked at one by one."""
MOST_DEPTH = 100
"""As protobuf's own."""
ELEMENTS = frozenset(
    {"float_data", "int32_data", "string_data", "int64_data", "raw_data", "double_data", "uint64_data"}
)
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5
MOST_VARINT = 10


def read(path: Path) -> onnx.ModelProto:
    """Raises ValueError where the file is no ONNX graph, or its outline is out of bounds."""
    size = path.stat().st_size
    if size >= FILE_BYTES:
        raise ValueError(f"{path.name} has {size} bytes: an ONNX graph has less than 2 GB, and more as external data")
    try:
        with path.open("rb") as file:
            outline = _Reading(file).message(cast(Descriptor, onnx.ModelProto.DESCRIPTOR), size, MOST_DEPTH)
        return onnx.ModelProto.FromString(bytes(outline))
    except (DecodeError, EOFError):
        raise ValueError(f"{path.name} is not an ONNX graph") from None
    except OverflowError:
        raise ValueError(f"{path.name}: the graph is too large, even without its weights") from None


class _Reading:
    """Raises EOFError where the file is not in order, and OverflowError where it is beyond the bounds."""

    def __init__(self, file: BufferedReader) -> None:
        self._file = file
        self._fields = self._kept = 0

    def message(self, kind: Descriptor, end: int, depth: int) -> bytearray:
        """Of a message from here to `end`, in the file, what is kept, encoded."""
        if depth == 0:
            raise OverflowError
        kept = bytearray()
        while self._file.tell() < end:
            self._field(kind, end, depth, kept)
        if self._file.tell() != end:
            raise EOFError
        return kept

    def _field(self, kind: Descriptor, end: int, depth: int, kept: bytearray) -> None:
        self._fields += 1
        if self._fields > MOST_FIELDS:
            raise OverflowError
        key, tag = self._varint()
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            self._keep(kept, tag + self._varint()[1])
        elif wire_type in (EIGHT_BYTES, FOUR_BYTES):
            self._keep(kept, tag + self._take(8 if wire_type == EIGHT_BYTES else 4))
        elif wire_type == LENGTH:
            self._long(kind, number, end, depth, kept, tag)
        else:
            raise EOFError

    def _long(self, kind: Descriptor, number: int, end: int, depth: int, kept: bytearray, tag: bytes) -> None:
        length, _ = self._varint()
        start = self._file.tell()
        if length > end - start:
            raise EOFError
        field = kind.fields_by_number.get(number)
        if field is not None and kind.name == "TensorProto" and field.name in ELEMENTS:
            self._file.seek(start + length)
        elif field is not None and field.message_type is not None and length > SHORT_BYTES:
            inner = self.message(field.message_type, start + length, depth - 1)
            self._keep(kept, tag + _encoded(len(inner)))
            kept += inner
        else:
            self._keep(kept, tag + _encoded(length))
            self._keep(kept, self._take(length))

    def _varint(self) -> tuple[int, bytes]:
        """The number, and its bytes."""
        value, taken = 0, bytearray()
        while len(taken) < MOST_VARINT:
            taken += self._take(1)
            value |= (taken[-1] & 0x7F) << 7 * (len(taken) - 1)
            if taken[-1] < 0x80:
                return value, bytes(taken)
        raise EOFError

    def _take(self, length: int) -> bytes:
        if length > OUTLINE_BYTES:
            raise OverflowError
        content = self._file.read(length)
        if len(content) < length:
            raise EOFError
        return content

    def _keep(self, kept: bytearray, content: bytes) -> None:
        self._kept += len(content)
        if self._kept > OUTLINE_BYTES:
            raise OverflowError
        kept += content


def _encoded(value: int) -> bytes:
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    groups.append(value)
    return bytes(groups)
