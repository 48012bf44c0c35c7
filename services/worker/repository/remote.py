"""A model repository behind fsspec: opened and listed. Its names are those of a stranger."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Protocol
from urllib.parse import unquote

from fsspec.core import url_to_fs

from services.worker.repository.model_file import NAME
from services.worker.repository.urls import redacted
from services.worker.repository.versions import POLICY_FILE

MOST_FILES = 100_000
NAME_BYTES = 255
"""What a local file system takes."""
SEEN = (
    *("ETag", "etag", "checksum", "md5", "md5Hash", "Content-MD5", "crc32c", "sha256", "CRC", "blob_id"),
    *("generation", "VersionId", "LastModified", "last_modified", "mtime", "updated", "created", "date_time"),
)
"""What file systems call that by which a file is known to have changed."""


class Stream(Protocol):
    """A file that is read from its beginning."""

    def read(self, size: int) -> bytes: ...
    def __enter__(self) -> "Stream": ...
    def __exit__(self, *error: object) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteFile:
    path: str
    """As its file system has it."""
    size: int | None
    """None: nobody knows."""
    tag: str
    """Changes where the file does, as far as its file system tells."""


@dataclass(slots=True, kw_only=True)
class Listing:
    """What there is. A key is NAME/VERSION, or NAME/model.yaml for a model's policy."""

    versions: dict[str, dict[str, RemoteFile]] = field(default_factory=dict)
    """Their files, by name relative to the version's folder."""
    policies: dict[str, RemoteFile] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    """Why."""

    def units(self) -> dict[str, Mapping[str, RemoteFile]]:
        """All that is copied as one: the files of each version, and each policy by itself."""
        return {**self.versions, **{key: {POLICY_FILE: file} for key, file in self.policies.items()}}


class Remote:
    """A file system at one moment: nothing that was seen before is remembered."""

    def __init__(self, url: str) -> None:
        """Raises ValueError where a package is missing or the protocol is unknown, and what the file system raises."""
        try:
            self._files, self._root = url_to_fs(url, skip_instance_cache=True)
        except ImportError as error:
            raise ValueError(_missing(url, error)) from None
        except UnicodeError as error:  # of what lies there, not of the URL
            raise OSError(str(error)) from None
        except ValueError as error:
            raise ValueError(f"models: {redacted(url)}: {error}") from None
        self._quotes = re.match(r"https?://", url) is not None

    def open(self, file: RemoteFile) -> Stream:
        stream: Stream = self._files.open(file.path, "rb")
        return stream

    def list(self) -> Listing:
        """Raises ValueError where there are too many files, and what the file system raises."""
        found: Mapping[str, Mapping[str, Any]] = self._files.find(self._root, detail=True)
        if len(found) > MOST_FILES:
            raise ValueError(f"{len(found)} files; at most {MOST_FILES} are taken")
        listing = Listing()
        for path, about in sorted(found.items()):
            self._note(listing, path, about)
        for key in listing.refused:
            listing.versions.pop(key, None)
        return listing

    def _note(self, listing: Listing, path: str, about: Mapping[str, Any]) -> None:
        root = self._root.rstrip("/") + "/" if self._root else ""
        relative = path.removeprefix(root)
        parts = (unquote(relative) if self._quotes else relative).split("/")
        if len(parts) < 2 or any(map(_is_hidden, parts[:2])) or (len(parts) == 2 and parts[1] != POLICY_FILE):
            return
        key = "/".join(parts[:2])
        if reason := _wrong(parts, about) if path.startswith(root) else "lies elsewhere":
            listing.refused.setdefault(key, f"{'/'.join(parts)} {reason}")
        elif len(parts) == 2:
            listing.policies[key] = self._file(path, about)
        else:
            listing.versions.setdefault(key, {})["/".join(parts[2:])] = self._file(path, about)

    def _file(self, path: str, about: Mapping[str, Any]) -> RemoteFile:
        if about.get("size") is None:
            about = {**about, **self._files.info(path)}
        size = about.get("size")
        seen = {key: str(about[key]) for key in SEEN if about.get(key) is not None}
        return RemoteFile(path=path, size=None if size is None else int(size), tag=json.dumps(seen, sort_keys=True))


def _wrong(parts: list[str], about: Mapping[str, Any]) -> str:
    """Why a file is not taken; empty where it is."""
    if not all(map(_is_plain, parts)):
        return "is no name of a file inside the folder"
    named = parts[:1] if len(parts) == 2 else parts[:2]
    if POLICY_FILE in named or not all(re.fullmatch(NAME, part) for part in named):
        return "is no file of a model: such names have letters, digits, '_', '.', '-', and at most 64 of them"
    if about.get("type") != "file" or about.get("islink"):
        return "is not a plain file"
    return ""


def _is_hidden(part: str) -> bool:
    return part.startswith(".") and part not in (".", "..")


def _is_plain(part: str) -> bool:
    size = len(part.encode(errors="replace"))
    return part not in ("", ".", "..") and "\\" not in part and part.isprintable() and size <= NAME_BYTES


def _missing(url: str, error: ImportError) -> str:
    package = getattr(error.__cause__, "name", None) or error.name
    if package is None:
        return f"models: {redacted(url)}: {error}"
    package = PurePosixPath(package.replace(".", "/")).parts[0]
    return f"models: {url.split('://')[0]}:// needs the package {package}: pip install {package}"
