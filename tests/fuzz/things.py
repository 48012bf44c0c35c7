"""What may lie in a folder where a file is expected."""

import os
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path


def _linked(target: Path, secret: Path) -> None:
    target.symlink_to(secret)


def _hard(target: Path, secret: Path) -> None:
    os.link(secret, target)


def _folder_linked(target: Path, secret: Path) -> None:
    target.symlink_to(secret.parent, target_is_directory=True)


def _pipe(target: Path, secret: Path) -> None:
    os.mkfifo(target)


def _socket(target: Path, secret: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, suppress(OSError):
        server.bind(str(target))


def _device(target: Path, secret: Path) -> None:
    """/dev/zero, where it may be made."""
    with suppress(PermissionError):
        os.mknod(target, 0o600 | 0o020000, os.makedev(1, 5))


def _folder(target: Path, secret: Path) -> None:
    target.mkdir()


def _deep(target: Path, secret: Path) -> None:
    target.joinpath(*["d"] * 400).mkdir(parents=True)


def _odd_names(target: Path, secret: Path) -> None:
    for name in (b"\xff\xfe", b"a\nb", b"\x1b[31m", b"n" * 255):
        Path(os.fsdecode(os.fsencode(target.parent) + b"/" + name)).write_bytes(b"")


def _nothing(target: Path, secret: Path) -> None:
    pass


THINGS: Mapping[str, Callable[[Path, Path], None]] = {
    "nothing": _nothing,
    "linked": _linked,
    "hard": _hard,
    "folder_linked": _folder_linked,
    "pipe": _pipe,
    "socket": _socket,
    "device": _device,
    "folder": _folder,
    "deep": _deep,
    "odd_names": _odd_names,
}
"""By name, what puts the thing at a place; it is told where the secret lies."""
PLAIN = frozenset({"nothing", "folder", "deep", "odd_names"})
"""Things for which a folder need not be refused."""
