"""A local copy of a remote model repository, in which a version is there whole or not at all.

    CACHE/ID/                   one for each URL
        NAME/VERSION/…          what is served
        NAME/model.yaml         a model's policy
        .marks/NAME/….json      what each file was when it was copied: its size, and its tag
        .begun/NAME/….json      the same of what is being copied
        .partial/NAME/VERSION/  what there is of it; gone on with after an interruption
        .trash/                 what was replaced, or has vanished remotely
        .lock                   held by the one process that refreshes

Files are compared by what the remote file system says of them; none is read for that. What was copied takes its place
by being renamed.
"""

import errno
import fcntl
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import structlog

from services.worker import untrusted
from services.worker.repository.copying import Progress, check_room, copy_local, copy_remote, sync_folders
from services.worker.repository.model import Broken
from services.worker.repository.remote import Listing, Remote, RemoteFile
from services.worker.repository.urls import redacted
from services.worker.repository.versions import POLICY_FILE

MARKS, BEGUN, PARTIAL, TRASH, LOCK = ".marks", ".begun", ".partial", ".trash", ".lock"
Files = Mapping[str, RemoteFile]
Mark = Mapping[str, Sequence[object]]
log = structlog.get_logger()


class Mirror:
    """Implements `Source`."""

    def __init__(self, url: str, cache: Path) -> None:
        """Raises ValueError where the URL is of a protocol that nothing installed knows."""
        self._url, self._told = url, redacted(url)
        self._folder = cache / hashlib.sha256(url.encode()).hexdigest()[:16]
        try:
            Remote(url)
        except ValueError:
            raise
        except Exception as error:  # whatever the file system's library raises: it may be there later
            log.warning("source.away", url=self._told, error=untrusted.sentence(error))

    @property
    def folder(self) -> Path:
        return self._folder

    def refresh(self) -> Sequence[Broken]:
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(self._folder / LOCK):
            for name in (MARKS, BEGUN, PARTIAL, TRASH):
                (self._folder / name).mkdir(exist_ok=True)
            remote, listing = self._look()
            refused = dict(listing.refused)
            for key, files in listing.units().items():
                try:
                    self._renew(remote, key, files)
                except Exception as error:  # whatever the file system's library raises
                    refused[key] = untrusted.sentence(error)
            self._drop_others({*listing.units(), *listing.refused})
            shutil.rmtree(self._folder / TRASH)
        broken = [Broken(path=self._inside(key), reason=refused[key]) for key in sorted(refused)]
        for one in broken:
            log.warning("source.refused", path=str(one.path), reason=one.reason)
        return broken

    def _look(self) -> tuple[Remote, Listing]:
        try:
            remote = Remote(self._url)
            listing = remote.list()
        except Exception as error:
            raise OSError(f"{self._told} cannot be listed: {untrusted.sentence(error)}") from error
        if not listing.units() and not listing.refused:
            raise OSError(f"{self._told} holds no model")
        return remote, listing

    def _renew(self, remote: Remote, key: str, files: Files) -> None:
        """Makes what lies at `key` what it is remotely."""
        mark = {name: [file.size, file.tag] for name, file in files.items()}
        if self._read_mark(MARKS, key) == mark and all(self._local(key, name).is_file() for name in files):
            return
        progress = Progress(key, files.values())
        try:
            partial = self._copy(remote, key, files, mark, progress)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                shutil.rmtree(self._folder / PARTIAL / key, ignore_errors=True)
            raise
        sync_folders(partial)
        self._place(partial, key)
        self._write_mark(MARKS, key, mark)
        progress.end()

    def _copy(self, remote: Remote, key: str, files: Files, mark: Mark, progress: Progress) -> Path:
        """The folder that now holds all files."""
        partial, before = self._folder / PARTIAL / key, self._read_mark(MARKS, key)
        if self._read_mark(BEGUN, key) != mark:
            shutil.rmtree(partial, ignore_errors=True)
            self._write_mark(BEGUN, key, mark)
        partial.mkdir(parents=True, exist_ok=True)
        missing = {name: file for name, file in files.items() if not (partial / name).is_file()}
        check_room(self._folder, sum(file.size or 0 for file in missing.values()))
        temporary = self._folder / PARTIAL / ".file"
        for name, file in missing.items():
            if before.get(name) == mark[name] and self._local(key, name).is_file():
                copy_local(self._local(key, name), temporary, progress)
            else:
                copy_remote(remote, file, temporary, progress)
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            temporary.replace(partial / name)
        return partial

    def _place(self, partial: Path, key: str) -> None:
        target = self._folder / key
        target.parent.mkdir(exist_ok=True)
        if _is_policy(key):
            (partial / POLICY_FILE).replace(target)
        else:
            self._discard(target)
            partial.rename(target)

    def _local(self, key: str, name: str) -> Path:
        return self._folder / key if _is_policy(key) else self._folder / key / name

    def _inside(self, key: str) -> Path:
        """Where a version lies, whatever its name begins with."""
        return self._folder.joinpath(*untrusted.printable(key).split("/"))

    def _drop_others(self, keys: set[str]) -> None:
        """Takes away what is remotely no more."""
        for path in self._folder.glob("[!.]*/*"):
            if (key := path.relative_to(self._folder).as_posix()) not in keys:
                log.info("source.vanished", model=key)
                self._discard(path)
                self._mark_path(MARKS, key).unlink(missing_ok=True)
        for path in self._folder.glob("[!.]*/"):
            if not any(path.iterdir()):
                path.rmdir()
        for path in self._folder.glob(f"{PARTIAL}/*/*"):
            if (key := path.relative_to(self._folder / PARTIAL).as_posix()) not in keys:
                self._discard(path)
                self._mark_path(BEGUN, key).unlink(missing_ok=True)

    def _discard(self, path: Path) -> None:
        if path.exists():
            path.rename(Path(tempfile.mkdtemp(dir=self._folder / TRASH)) / "it")

    def _mark_path(self, kind: str, key: str) -> Path:
        return self._folder / kind / f"{key}.json"

    def _read_mark(self, kind: str, key: str) -> Mark:
        try:
            mark: Mark = json.loads(self._mark_path(kind, key).read_bytes())
        except (OSError, ValueError):
            return {}
        return mark

    def _write_mark(self, kind: str, key: str, mark: Mark) -> None:
        path = self._mark_path(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".new").write_text(json.dumps(mark))
        path.with_suffix(".new").replace(path)


def _is_policy(key: str) -> bool:
    """No version has such a name."""
    return key.endswith(f"/{POLICY_FILE}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Waits for other processes."""
    with path.open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
