"""A file that is read again when it changes: another content, another file under its name, or, as Kubernetes replaces
a mounted Secret, another folder behind a symbolic link on the way to it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

T = TypeVar("T")
Stamp = tuple[int, int, int]
NEVER: Stamp = (0, 0, 0)
PERIOD_S = 0.5
LARGEST_BYTES = 16 << 20
log = structlog.get_logger()


class Watched(Generic[T]):
    """What `parse` makes of a file. `parse` raises ValueError with a sentence where the file is wrong; a file that is
    wrong later leaves the value as it was, and an error in the log."""

    def __init__(self, path: Path, parse: Callable[[str], T], value: T, stamp: Stamp) -> None:
        self._path, self._parse, self._stamp = path, parse, stamp
        self._complaint = ""
        self.value = value

    @classmethod
    async def open(cls, path: Path, parse: Callable[[str], T]) -> "Watched[T]":
        """Raises ValueError where there is no such file, or it is wrong."""
        try:
            stamp = await asyncio.to_thread(_stamp, path)
            value = await asyncio.to_thread(_read, path, parse)
        except (OSError, ValueError) as error:
            raise ValueError(_sentence(path, error)) from None
        return cls(path, parse, value, stamp)

    async def run(self) -> None:
        """Looks at the file for ever."""
        while True:
            await asyncio.sleep(PERIOD_S)
            await self._look()

    async def _look(self) -> None:
        try:
            stamp = await asyncio.to_thread(_stamp, self._path)
            if stamp == self._stamp:
                return
            self._stamp = stamp
            self.value = await asyncio.to_thread(_read, self._path, self._parse)
        except OSError as error:
            self._stamp = NEVER
            self._complain(_sentence(self._path, error))
        except ValueError as error:
            self._complain(_sentence(self._path, error))
        else:
            self._complaint = ""
            log.info("file.read_again", path=str(self._path))

    def _complain(self, sentence: str) -> None:
        """Once for each thing that is wrong."""
        if sentence != self._complaint:
            log.error("file.refused", error=f"{sentence}; what it said before holds still")
        self._complaint = sentence


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_ino, status.st_size


def _read(path: Path, parse: Callable[[str], T]) -> T:
    if path.stat().st_size > LARGEST_BYTES:
        raise ValueError(f"has more than {LARGEST_BYTES} bytes")
    try:
        return parse(path.read_text())
    except RecursionError:
        raise ValueError("is nested too deep") from None


def _sentence(path: Path, error: Exception) -> str:
    return f"{path}: {error.strerror if isinstance(error, OSError) else error}"
