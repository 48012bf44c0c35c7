"""Files of byte strings, each behind its length."""

from collections.abc import Sequence
from pathlib import Path

LENGTH_BYTES = 8


def write(path: str | Path, items: Sequence[bytes]) -> None:
    with Path(path).open("wb") as file:
        for item in items:
            file.write(len(item).to_bytes(LENGTH_BYTES, "little") + item)


def read(path: str | Path) -> list[bytes]:
    packed, items, at = Path(path).read_bytes(), list[bytes](), 0
    while at < len(packed):
        size = int.from_bytes(packed[at : at + LENGTH_BYTES], "little")
        at += LENGTH_BYTES
        items.append(packed[at : at + size])
        at += size
    return items
