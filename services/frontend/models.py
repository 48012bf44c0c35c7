"""Which models and workers there are, as the registry said a moment ago."""

import asyncio
import time

from millrace.errors import NotFound, Unavailable
from millrace.queue import ModelEntry, Registry, WorkerEntry

FRESH_S = 1.0
NEWS_S = 0.05
"""The least time between two readings."""
READY = "ready"


class Models:
    """A cached view of the registry. Raises Unavailable where Redis is away."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._models: list[ModelEntry] = []
        self._workers: list[WorkerEntry] = []
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    async def resolve(self, name: str, version: str, *, without_workers: bool = True) -> ModelEntry:
        """The version asked for; else the highest that a worker is ready for; else the highest known.

        Raises:
            NotFound: no such model, or no such version of it.
            Unavailable: no worker is ready for it, and `without_workers` is false.
        """
        await self._refresh(FRESH_S)
        if not any(entry.name == name and version in ("", entry.version) for entry in self._models):
            await self._refresh_anew()
        known = [entry for entry in self._models if entry.name == name]
        if not known:
            raise NotFound(f"there is no model {name}", reason="MODEL_UNKNOWN")
        if version:
            known = [entry for entry in known if entry.version == version]
        if not known:
            raise NotFound(f"model {name} has no version {version}", reason="MODEL_VERSION_UNKNOWN")
        served = [entry for entry in known if self._ready_for(str(entry.model))]
        if not served and not without_workers:
            raise Unavailable(f"no worker is ready for model {name}", reason="NO_WORKER")
        return max(served or known, key=_rank)

    def is_served(self, entry: ModelEntry) -> bool:
        """Whether a worker was ready for it at the last reading."""
        return self._ready_for(str(entry.model)) > 0

    async def is_ready(self, name: str, version: str) -> bool:
        """Whether a worker is ready for the model, in any version where none is named."""
        known = (entry for entry in await self.models() if entry.name == name and version in ("", entry.version))
        return any(self._ready_for(str(entry.model)) for entry in known)

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
        return {str(entry.model): self._ready_for(str(entry.model)) for entry in await self.models()}

    def _ready_for(self, model: str) -> int:
        return sum(worker.state == READY and model in worker.models for worker in self._workers)

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
        self._models, self._workers = await self._registry.models(), await self._registry.workers()
        self._read_at = began

    def _now(self) -> float:
        return time.monotonic()


def _rank(entry: ModelEntry) -> tuple[int, str]:
    return (int(entry.version) if entry.version.isdecimal() else -1, entry.version)
