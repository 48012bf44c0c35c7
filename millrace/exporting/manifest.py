"""SHA256SUMS: what the files of a version are, as sha256sum(1) writes it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

MANIFEST_FILE = "SHA256SUMS"
CHUNK_BYTES = 8 << 20


def write(folder: Path, advance: Callable[[float], None]) -> None:
    """Of all files below; `advance` is told the bytes that were read."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    lines = [f"{_sum(folder / name, advance)}  {name}\n" for name in names if name != MANIFEST_FILE]
    (folder / MANIFEST_FILE).write_text("".join(lines))


def size(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _sum(path: Path, advance: Callable[[float], None]) -> str:
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            whole.update(chunk)
            advance(len(chunk))
    return whole.hexdigest()
