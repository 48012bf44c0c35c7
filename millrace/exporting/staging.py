"""A version's folder that appears whole or not at all.

    models/.exporting-1f3a9c/lock             held by the process that writes, for as long as it lives
    models/.exporting-1f3a9c/NAME/VERSION/    a repository of one version, under a name that workers ignore
    models/NAME/VERSION/                      the same folder, renamed when all of it is on the disk

The kernel lets go of a lock when its process ends, however it ends: so a folder whose lock can be had is nobody's, and
the next export removes it.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PREFIX = ".exporting-"
FAILED_PREFIX = ".failed-"
LOCK_FILE = "lock"


@contextmanager
def staging(repository: Path, name: str, version: str, *, keep_failed: bool = False) -> Iterator[Path]:
    """An empty folder NAME/VERSION beside the models, which is removed at the end, whether it was published or not;
    with `keep_failed` what an error leaves behind stays, under a name that the error is told."""
    repository.mkdir(parents=True, exist_ok=True)
    base = repository / f"{PREFIX}{secrets.token_hex(6)}"
    base.mkdir()
    lock = os.open(base / LOCK_FILE, os.O_CREAT | os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        folder = base / name / version
        folder.mkdir(parents=True)
        yield folder
    except Exception as error:
        if keep_failed:
            kept = base.with_name(FAILED_PREFIX + base.name.removeprefix(PREFIX))
            base.rename(kept)
            error.add_note(f"what was made is kept in {kept}")
        raise
    finally:
        shutil.rmtree(base, ignore_errors=True)
        os.close(lock)


def sweep(repository: Path) -> list[Path]:
    """Removes what exports that were killed left behind; answers the folders."""
    removed = []
    for base in sorted(repository.glob(f"{PREFIX}*")):
        with contextlib.suppress(OSError):
            lock = os.open(base / LOCK_FILE, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(base)
                removed.append(base)
            finally:
                os.close(lock)
    return removed


def publish(folder: Path, target: Path) -> None:
    """Gives the folder its name, once all of it is on the disk. Raises ValueError where there is one of that name."""
    _sync(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.rename(target)
    except OSError as error:
        raise ValueError(f"{target} cannot be published: {error.strerror}") from error
    for parent in (target.parent, target.parent.parent):
        _sync_entry(parent)


def _sync(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        _sync_entry(path)


def _sync_entry(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
