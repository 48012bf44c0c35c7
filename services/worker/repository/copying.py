"""Files from a remote file system to a local folder: bounded by what was said of them, and on the disk before they have
their names."""

import os
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import structlog

from services.worker.repository.budget import told
from services.worker.repository.remote import Remote, RemoteFile

CHUNK_BYTES = 8 << 20
SPARE_BYTES = 64 << 20
"""That a disk keeps."""
PROGRESS_S = 10.0
log = structlog.get_logger()


class Progress:
    """Tells the log how far a long copy is."""

    def __init__(self, key: str, files: Iterable[RemoteFile]) -> None:
        sizes = [file.size or 0 for file in files]
        self._key, self._total, self._files = key, sum(sizes), len(sizes)
        self._copied = 0
        self._began = self._said = time.monotonic()
        log.info("source.copying", model=key, files=self._files, bytes=self._total)

    @property
    def total(self) -> int:
        return self._total

    def add(self, size: int) -> None:
        self._copied += size
        now = time.monotonic()
        if now - self._said >= PROGRESS_S:
            self._said = now
            log.info("source.progress", model=self._key, bytes=self._copied, of=self._total)

    def end(self) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        log.info("source.copied", model=self._key, files=self._files, bytes=self._copied, seconds=seconds)


def check_room(folder: Path, needed: int) -> None:
    """Raises ValueError where the disk of `folder` has no room for so many bytes."""
    free = max(shutil.disk_usage(folder).free - SPARE_BYTES, 0)
    if needed > free:
        raise ValueError(f"its files need {told(needed)}, and the disk of {folder} has room for {told(free)}")


def copy_remote(remote: Remote, file: RemoteFile, target: Path, progress: Progress) -> None:
    """Raises ValueError where the file has not the size that was said, and what its file system raises."""
    copied = 0
    with remote.open(file) as stream, target.open("wb") as local:
        while chunk := stream.read(CHUNK_BYTES):
            copied += len(chunk)
            if file.size is not None and copied > file.size:
                break
            local.write(chunk)
            progress.add(len(chunk))
        os.fsync(local.fileno())
    if file.size is not None and copied != file.size:
        raise ValueError(f"{file.path} has {'more' if copied > file.size else 'less'} than {file.size} bytes")


def copy_local(source: Path, target: Path, progress: Progress) -> None:
    """What was copied before."""
    shutil.copyfile(source, target)
    with target.open("rb+") as local:
        os.fsync(local.fileno())
    progress.add(target.stat().st_size)


def sync_folders(folder: Path) -> None:
    """Has the names of all files below on the disk."""
    for path, _, _ in os.walk(folder):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
