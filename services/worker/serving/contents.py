"""What the model repository holds, as it was last read."""

import asyncio
from collections.abc import Collection
from pathlib import Path

import structlog

from services.worker import repository
from services.worker.repository import versions
from services.worker.repository.model import Broken, Model
from services.worker.repository.source import Source
from services.worker.repository.versions import ALL, Policy

log = structlog.get_logger()


class Contents:
    """Empty before it is first read."""

    def __init__(self, source: Source, domains: Collection[str]) -> None:
        self._source, self._domains = source, domains
        self._versions: dict[Path, Model | Broken] = {}
        self._seen: dict[Path, Model | Broken] = {}
        self._policies: dict[str, Policy] = {}

    @property
    def names(self) -> set[str]:
        return {self._name(path) for path in self._versions}

    @property
    def digests(self) -> set[str]:
        """Of all versions that are in order."""
        return {one.digest for one in self._versions.values() if isinstance(one, Model)}

    def models(self, name: str) -> list[Model]:
        """The versions of a model that are in order."""
        return [one for path, one in self._versions.items() if isinstance(one, Model) and self._name(path) == name]

    def broken(self, name: str) -> dict[str, str]:
        """By version, why it is not in order; "" is the model as a whole."""
        return {
            path.name if self._is_version(path) else "": one.reason
            for path, one in self._versions.items()
            if isinstance(one, Broken) and self._name(path) == name
        }

    def policy(self, name: str) -> Policy:
        return self._policies.get(name, ALL)

    async def read(self, *, steady: bool = False) -> None:
        """Reads the repository again. With `steady`, versions that have changed since the last reading stay as they
        were known: they may be half written. Raises OSError, and changes nothing, where it cannot be read, or holds
        nothing any more."""
        found, policies = await asyncio.to_thread(self._read)
        if self._seen and not found:
            raise FileNotFoundError(f"{self._source.folder} holds no model any more")
        for path, one in found.items():
            if isinstance(one, Broken) and self._reason(path) != one.reason:
                log.error("model.broken", folder=str(path), reason=one.reason)
        before, self._seen = self._seen, found
        if steady:
            unsteady = {path for path, one in found.items() if path not in before or before[path].stamp != one.stamp}
            kept = {path: one for path, one in self._versions.items() if path in unsteady}
            found = {path: one for path, one in found.items() if path not in unsteady} | kept
        self._versions, self._policies = dict(sorted(found.items(), key=_order)), policies

    def _read(self) -> tuple[dict[Path, Model | Broken], dict[str, Policy]]:
        refused = self._source.refresh()
        models, broken = repository.scan(self._source.folder, domains=self._domains, known=self._seen.values())
        found: dict[Path, Model | Broken] = {one.path: one for one in (*refused, *broken)}
        found |= {model.folder: model for model in models}
        return found, {model.name: _policy(model.folder.parent) for model in models}

    def _reason(self, path: Path) -> str:
        before = self._seen.get(path)
        return before.reason if isinstance(before, Broken) else ""

    def _is_version(self, path: Path) -> bool:
        return path.parent != self._source.folder

    def _name(self, path: Path) -> str:
        return path.parent.name if self._is_version(path) else path.name


def _policy(name: Path) -> Policy:
    try:
        return versions.read_policy(name)
    except (OSError, ValueError):
        return ALL


def _order(entry: tuple[Path, object]) -> tuple[str, tuple[bool, int, str]]:
    path, _ = entry
    return path.parent.name, versions.order(path.name)
