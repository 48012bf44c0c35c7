"""Tensors as the Open Inference Protocol names and packs them, for both sides of the queue, without numpy."""

from collections.abc import Sequence
from dataclasses import dataclass

ITEM_BYTES = {
    "BOOL": 1,
    "INT8": 1,
    "INT16": 2,
    "INT32": 4,
    "INT64": 8,
    "UINT8": 1,
    "UINT16": 2,
    "UINT32": 4,
    "UINT64": 8,
    "FP16": 2,
    "BF16": 2,
    "FP32": 4,
    "FP64": 8,
}
"""Bytes of one element, little-endian. BYTES is not among them: its elements carry their lengths."""
FORMATS = {
    "BOOL": "?",
    "INT8": "b",
    "INT16": "h",
    "INT32": "i",
    "INT64": "q",
    "UINT8": "B",
    "UINT16": "H",
    "UINT32": "I",
    "UINT64": "Q",
    "FP16": "e",
    "FP32": "f",
    "FP64": "d",
}
"""For `struct`, of one element; it knows no BF16."""
BYTES = "BYTES"
LENGTH_BYTES = 4
CONTENTS = {
    "BOOL": "bool_contents",
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    BYTES: "bytes_contents",
}
"""The field of InferTensorContents for each datatype; the 16-bit floats have none."""
MOST_CLASSES = 4096
"""Of an output that is asked for as classifications, in each row."""
ANY = -1
LARGEST_DIMENSION = 2**31 - 1


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor that a model takes or gives."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    """`ANY` where any size goes."""

    def fits(self, shape: Sequence[int]) -> bool:
        return len(shape) == len(self.shape) and all(
            wanted in (ANY, given) for wanted, given in zip(self.shape, shape, strict=True)
        )


def pack_bytes(items: Sequence[bytes]) -> bytes:
    """A BYTES tensor's elements, each behind its length as a little-endian uint32."""
    return b"".join(len(item).to_bytes(LENGTH_BYTES, "little") + item for item in items)


def unpack_bytes(packed: bytes) -> list[bytes]:
    """Raises ValueError where the lengths do not add up."""
    items, at, end = [], 0, len(packed)
    while at < end:
        size = int.from_bytes(packed[at : at + LENGTH_BYTES], "little")
        at += LENGTH_BYTES
        if at + size > end:
            raise ValueError("an element's length reaches beyond the tensor's end")
        items.append(packed[at : at + size])
        at += size
    return items
