"""Where the models lie: a local folder, or any URL that fsspec knows, whose models are copied to a local folder."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from services.worker.repository.model import Broken

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|.*::")
IN_PLACE = ("file://", "local://")


class Source(Protocol):
    """A model repository that is, or becomes, local."""

    @property
    def folder(self) -> Path:
        """What `repository.scan` reads."""

    def refresh(self) -> Sequence[Broken]:
        """Makes the folder what the source is now, and answers the versions that could not be had, of which the folder
        keeps what it had before. Blocks for as long as copying takes. Raises OSError where the source cannot be
        listed; the folder is then as it was."""


class LocalSource:
    """Implements `Source` for a folder that is served where it lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def folder(self) -> Path:
        return self._folder

    def refresh(self) -> Sequence[Broken]:
        return ()


def open_source(url: str, cache: Path) -> Source:
    """`url`: a path, or a URL of fsspec's, whose copies go below `cache`. Raises ValueError where the URL is of a
    protocol that nothing installed knows."""
    if url.startswith(IN_PLACE) and "::" not in url:
        return LocalSource(Path(unquote(urlsplit(url).path)))
    if not URL.match(url):
        return LocalSource(Path(url))
    from services.worker.repository.mirror import Mirror  # fsspec, for those who need it

    return Mirror(url, cache)
