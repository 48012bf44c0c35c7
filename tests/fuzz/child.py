"""The process that watch.py starts for a target, so that a crash, a hang or a bomb is seen and does not end the run:

    python -m tests.fuzz.child MODULE:TARGET SEED START STOP SECONDS FOLDER

Where it stands it writes into FOLDER/progress, with the input that it is about to run; what it finds goes into
FOLDER/findings.
"""

import importlib
import mmap
import pickle
import resource
import struct
import sys
from contextlib import closing
from pathlib import Path

from tests.fuzz.drive import Found, Tally, drive
from tests.fuzz.target import Target

PROGRESS, FINDINGS = "progress", "findings"
HEAD = struct.Struct("=qqqdq")
"""The input's index, how many were accepted and refused before it, the slowest of them in seconds, and the size of the
input, which follows; −1 where it is too large for the file."""
PROGRESS_BYTES = 4 << 20


class Progress:
    """The file through which a run tells where it stands, also after its death."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        path = folder / PROGRESS
        if create:
            path.write_bytes(HEAD.pack(-1, 0, 0, 0.0, -1) + bytes(PROGRESS_BYTES - HEAD.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), PROGRESS_BYTES)

    def note(self, index: int, data: bytes, tally: Tally) -> None:
        fits = len(data) <= PROGRESS_BYTES - HEAD.size
        if fits:
            self._map[HEAD.size : HEAD.size + len(data)] = data
        size = len(data) if fits else -1
        HEAD.pack_into(self._map, 0, index, tally.accepted, tally.refused, tally.slowest_s, size)

    @property
    def index(self) -> int:
        """Of the input that runs; −1 before the first."""
        return int(HEAD.unpack_from(self._map, 0)[0])

    @property
    def tally(self) -> Tally:
        """Of the inputs before it."""
        _, accepted, refused, slowest_s, _ = HEAD.unpack_from(self._map, 0)
        return Tally(target="", accepted=accepted, refused=refused, slowest_s=slowest_s)

    @property
    def data(self) -> bytes | None:
        """The input, where it fits."""
        size = HEAD.unpack_from(self._map, 0)[-1]
        return self._map[HEAD.size : HEAD.size + size] if size >= 0 else None

    def close(self) -> None:
        self._map.close()


def load(path: str) -> type[Target]:
    """The class that MODULE:TARGET names."""
    module, _, name = path.partition(":")
    kind: type[Target] = getattr(importlib.import_module(module), name)
    return kind


def main() -> None:
    path, seed, start, stop, seconds, folder = sys.argv[1:]
    kind = load(path)
    if kind.address_space_bytes is not None:
        resource.setrlimit(resource.RLIMIT_AS, (kind.address_space_bytes, kind.address_space_bytes))
    with closing(Progress(Path(folder))) as progress, (Path(folder) / FINDINGS).open("ab") as findings:

        def report(found: Found) -> None:
            pickle.dump(found, findings)
            findings.flush()

        target = kind(int(seed))
        tally = drive(target, range(int(start), int(stop)), seconds=float(seconds), note=progress.note, report=report)
        progress.note(int(stop), b"", tally)


if __name__ == "__main__":
    main()
