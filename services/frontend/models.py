"""Which models and workers there are, as the registry said a moment ago."""

import asyncio
import time
from collections import Counter

from millrace.errors import NotFound, Unavailable
from millrace.queue import ModelEntry, ModelState, ModelVersion, Registry, WorkerEntry

FRESH_S = 1.0
"""A worker serves a version that it is to unload for twice as long, at least, after it has said so."""
NEWS_S = 0.05
"""The least time between two readings."""
READY = "ready"


class Models:
    """A cached view of the registry. Raises Unavailable where Redis is away."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._models: list[ModelEntry] = []
        self._workers: list[WorkerEntry] = []
        self._ready = Counter[ModelVersion]()
        """How many workers are ready for each."""
        self._leaving: frozenset[ModelVersion] = frozenset()
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def resolve(self, name: str, version: str, *, without_workers: bool = True) -> ModelEntry:
        """The version asked for; else the highest that a worker is ready for; else the highest known. One that is being
        unloaded everywhere takes no new jobs.

        Raises:
            NotFound: no such model, or no such version of it.
            Unavailable: no worker is ready for it, and `without_workers` is false.
        """
        await self._refresh(FRESH_S)
        if not any(map(self.is_served, self._known(name, version))):
            await self._refresh_anew()
        known = self._known(name, version)
        if not known:
            raise self._unknown(name, version)
        served = [entry for entry in known if self.is_served(entry)]
        if not served and not without_workers:
            raise Unavailable(f"no worker is ready for model {name}", reason="NO_WORKER")
        return max(served or known, key=_rank)

    def is_served(self, entry: ModelEntry) -> bool:
        """Whether a worker was ready for it at the last reading."""
        return self._ready[entry.model] > 0

    async def is_ready(self, name: str, version: str) -> bool:
        """Whether a worker is ready for the model, in any version where none is named."""
        known = (entry for entry in await self.models() if entry.name == name and version in ("", entry.version))
        return any(map(self.is_served, known))

    async def versions(self, name: str) -> list[str]:
        return [entry.version for entry in await self.models() if entry.name == name]

    async def models(self) -> list[ModelEntry]:
        await self._refresh_anew()
        return self._models

    async def workers(self) -> list[WorkerEntry]:
        await self._refresh_anew()
        return self._workers

    async def ready_workers(self) -> dict[str, int]:
        """For each model version that is known, how many workers are ready for it."""
        return {str(entry.model): self._ready[entry.model] for entry in await self.models()}

    async def forget(self, name: str) -> None:
        """The model was unloaded on purpose: nobody waits for a worker that has it, unless one has or will have it."""
        entries = [entry for entry in await self.models() if entry.name == name]
        coming = _standing(self._workers, ModelState.READY) | _standing(self._workers, ModelState.LOADING)
        await self._registry.forget(entry.model for entry in entries if entry.model not in coming)

    def _known(self, name: str, version: str) -> list[ModelEntry]:
        """What may take new jobs, as far as is known."""
        return [
            entry
            for entry in self._models
            if entry.name == name and version in ("", entry.version) and entry.model not in self._leaving
        ]

    def _unknown(self, name: str, version: str) -> NotFound:
        versions = [entry for entry in self._models if entry.name == name]
        if any(version in ("", entry.version) for entry in versions):
            text = f"model {name} version {version}" if version else f"model {name}"
            return NotFound(f"{text} is being unloaded", reason="MODEL_UNLOADING")
        if versions:
            return NotFound(f"model {name} has no version {version}", reason="MODEL_VERSION_UNKNOWN")
        return NotFound(f"there is no model {name}", reason="MODEL_UNKNOWN")

    async def _refresh(self, fresh_s: float) -> None:
        """Reads the registry where the last reading is older; one reading serves all that wait for it."""
        if self._now() - self._read_at < fresh_s:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.shield(self._reading)

    async def _refresh_anew(self) -> None:
        """Returns after a reading that began later than this call: somebody looks at the fleet, or asks for a model
        that the last reading did not know."""
        called = self._now()
        while self._read_at < called:
            await asyncio.sleep(self._read_at + NEWS_S - self._now())
            await self._refresh(NEWS_S)

    async def _read(self) -> None:
        began = self._now()
        self._workers = await self._registry.workers()
        self._models = await self._registry.models()
        self._ready, self._leaving = _ready(self._workers), _leaving(self._workers)
        self._read_at = began

    def _now(self) -> float:
        return time.monotonic()


def _ready(workers: list[WorkerEntry]) -> Counter[ModelVersion]:
    ready = (worker for worker in workers if worker.state == READY)
    return Counter(one.model for worker in ready for one in worker.index if one.state is ModelState.READY)


def _leaving(workers: list[WorkerEntry]) -> frozenset[ModelVersion]:
    """What some unload, and none has or will have."""
    coming = _standing(workers, ModelState.READY) | _standing(workers, ModelState.LOADING)
    return _standing(workers, ModelState.UNLOADING) - coming


def _standing(workers: list[WorkerEntry], state: ModelState) -> frozenset[ModelVersion]:
    """What stands so on some worker."""
    return frozenset(one.model for worker in workers for one in worker.index if one.state is state)


def _rank(entry: ModelEntry) -> tuple[int, str]:
    return (int(entry.version) if entry.version.isdecimal() else -1, entry.version)
