"""SHA256SUMS of a version, read by the real repository."""

import hashlib
import random
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from services.worker import repository
from tests.fuzz.folders import Folder, check_reason
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.target import must
from tests.stub_models import write_stub

MANIFEST = "SHA256SUMS"
FILES: Mapping[str, bytes] = {"data/we ights": b"123", "ü": b"", "a\\b\nc": b"x", " b": b"y"}
ODD_NAMES = (b"../x", b"/etc/passwd", b"a\0b", b"", b".", b"x" * 5_000, b"\xff")


class Manifest(Folder):
    """SHA256SUMS."""

    name, share, file = "manifest", 1_500, MANIFEST

    def write(self, folder: Path) -> Path:
        version = write_stub(folder, name="tested")
        for name, content in FILES.items():
            (version / name).parent.mkdir(exist_ok=True)
            (version / name).write_bytes(content)
        (version / MANIFEST).write_text("".join(_lines(version)))
        return version

    @cached_property
    def known(self) -> Sequence[bytes]:
        text = self.samples[0]
        lines = text.splitlines(keepends=True)
        odd = [
            *(b"0" * 64 + b"  " + name for name in ODD_NAMES),
            *(lines[0].replace(b"  ", other) for other in (b" *", b" ", b"\t", b"  ./", b"  .//", b"  a/../", b"\\")),
            *(lines[0].upper(), lines[0] * 2, b"\xef\xbb\xbf" + lines[0], lines[0][:64], b"\\" + lines[0]),
            *(b"\x85", b"\x0c"),
        ]
        every = [text.replace(lines[0], line.rstrip(b"\n") + b"\n") for line in odd]
        return [text, b"", text.replace(b"\n", b"\r\n"), text[:-1], text * 100, b"0" * (2 << 20), *every]

    def mutant(self, dice: random.Random) -> bytes:
        lines = self.samples[0].splitlines(keepends=True)
        if dice.random() < 0.5:
            dice.shuffle(lines)
            at = dice.randrange(len(lines))
            lines[at] = mutate_bytes(dice, lines[at], dice.choice(lines))
            return b"".join(lines)
        return mutate_bytes(dice, self.samples[0], self.samples[0])

    def run(self, data: bytes) -> bool:
        """Whether the version is served: only where each file's sum is said, and nobody else's."""
        (self.version / MANIFEST).write_bytes(data)
        models, broken = repository.scan(self.folder)
        must(len(models) + len(broken) == 1, f"{len(models)} models and {len(broken)} broken ones")
        if broken:
            check_reason(broken[0].reason)
            return False
        said = [line.lstrip(b"\\")[:64].lower().decode() for line in data.split(b"\n") if line.strip(b"\r")]
        must({*said} == {line.lstrip("\\")[:64] for line in _lines(self.version)}, "served in spite of its sums")
        return True


def _lines(version: Path) -> Iterator[str]:
    for path in sorted(version.rglob("*")):
        name = path.relative_to(version).as_posix()
        if path.is_file() and name != MANIFEST:
            escaped = name.replace("\\", "\\\\").replace("\n", "\\n")
            mark = "\\" if escaped != name else ""
            yield f"{mark}{hashlib.sha256(path.read_bytes()).hexdigest()}  {escaped}\n"
