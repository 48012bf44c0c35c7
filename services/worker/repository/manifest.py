"""The sums of a version's files: its digest, and SHA256SUMS where it has one.

Such a file is what sha256sum(1) writes: a line `SUM  NAME` or `SUM *NAME` for each other file of the version. A line
that begins with a backslash holds a name with escapes: `\\\\` for a backslash, `\\n` and `\\r` for ends of lines.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from services.worker import untrusted
from services.worker.repository.model_file import inside

MANIFEST_FILE = "SHA256SUMS"
MANIFEST_BYTES = 1 << 20
ESCAPES = {r"\\": "\\", r"\n": "\n", r"\r": "\r"}
LINE = re.compile(r"(\\?)([0-9a-fA-F]{64}) [ *](.+)", re.DOTALL)


def read_sums(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The hex SHA-256 of each file. This is the one time that all of a version is read."""
    sums = {}
    for name in names:
        with (folder / name).open("rb") as file:
            sums[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def digest(sums: Mapping[str, str], sizes: Mapping[str, int]) -> str:
    """Of a whole version; `sizes` in bytes."""
    whole = hashlib.sha256()
    for name, content in sums.items():
        whole.update(f"{name}\0{sizes[name]}\0{content}\n".encode())
    return whole.hexdigest()


def read_manifest(folder: Path) -> dict[str, str]:
    """The sums that SHA256SUMS says, by name. Raises ValueError where it is not in order."""
    wanted: dict[str, str] = {}
    lines = untrusted.read_text(folder / MANIFEST_FILE, MANIFEST_BYTES).split("\n")
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        parts = LINE.fullmatch(line.removesuffix("\r"))
        if parts is None:
            raise ValueError(f"{MANIFEST_FILE}: line {number} is not a SHA-256 sum and a name")
        name = _name(parts[3], number, is_escaped=bool(parts[1]))
        if wanted.setdefault(name, parts[2].lower()) != parts[2].lower():
            raise ValueError(f"{MANIFEST_FILE}: {name} has two sums")
    return wanted


def check(wanted: Mapping[str, str], sums: Mapping[str, str]) -> None:
    """Raises ValueError with the first file that is not as SHA256SUMS has it."""
    for name in sorted(wanted.keys() | sums.keys() - {MANIFEST_FILE}):
        if name not in sums:
            raise ValueError(f"{name} is missing: {MANIFEST_FILE} names it")
        if name not in wanted:
            raise ValueError(f"{name} is not in {MANIFEST_FILE}")
        if wanted[name] != sums[name]:
            raise ValueError(f"{name} is not the file of {MANIFEST_FILE}: its SHA-256 is {sums[name]}")


def _name(text: str, number: int, *, is_escaped: bool) -> str:
    name = re.sub(r"\\.", lambda found: ESCAPES.get(found[0], found[0]), text) if is_escaped else text
    try:
        return PurePosixPath(inside(name)).as_posix()
    except ValueError as error:
        raise ValueError(f"{MANIFEST_FILE}: line {number}: {name} {error}") from None
