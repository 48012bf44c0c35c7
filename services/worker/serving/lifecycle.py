"""How a version comes to be served on this worker, and how it goes.

load      memory is reserved → the engine is built and warmed → its host takes jobs
reload    the same beside the old engine, whose host then takes no more and finishes what it holds
unload    the fleet is told → the host goes on until nobody needs it → its memory is free
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass

import structlog

from millrace.engine import Engine
from millrace.errors import Unavailable
from millrace.queue import JobQueue, ModelState, ModelVersion, Registry
from services.worker.repository.budget import Budget
from services.worker.repository.memory import needed_bytes
from services.worker.repository.model import Model
from services.worker.serving.hosting import Hosting, Served
from services.worker.serving.targets import Failure

QUIET_S = 2.0
"""A version that goes has had no job for so long, after every frontend could know that it takes no more: see
`services.frontend.models.FRESH_S`."""
RETRY_S = 0.1
Build = Callable[[Model, str, int], Engine]
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where engines are built."""

    worker_id: str
    device: str
    threads: int
    unload_s: float
    """What the jobs of an engine get that another one replaces."""


class OverBudget(ValueError):
    """There is not the memory for it."""


class Lifecycle:
    """`announce` tells the fleet how this worker stands; it raises Unavailable where Redis is away."""

    def __init__(
        self,
        place: Place,
        hosting: Hosting,
        budget: Budget,
        build: Build,
        queue: JobQueue,
        registry: Registry,
        announce: Callable[[], Awaitable[None]],
    ) -> None:
        self._place, self._hosting, self._budget, self._build = place, hosting, budget, build
        self._queue, self._registry, self._announce = queue, registry, announce
        self.served: dict[ModelVersion, Served] = {}
        self.failed: dict[ModelVersion, Failure] = {}
        self.changing: dict[ModelVersion, ModelState] = {}
        """What is being loaded for the first time, or unloaded."""
        self._one_load = asyncio.Lock()
        self._freed = False

    def served_of(self, name: str) -> dict[str, Model]:
        """What is served of a model, by version."""
        return {version.version: served.model for version, served in self.served.items() if version.name == name}

    def failed_of(self, name: str) -> dict[str, Failure]:
        return {version.version: failure for version, failure in self.failed.items() if version.name == name}

    def forgive(self, names: set[str]) -> None:
        """What failed of these models is worth another try."""
        self.failed = {version: failure for version, failure in self.failed.items() if version.name not in names}

    def forgive_others(self, digests: Collection[str]) -> None:
        """Forgets what failed of files that are not as they were."""
        self.failed = {version: failure for version, failure in self.failed.items() if failure.digest in digests}

    def forgive_starved(self) -> set[str]:
        """The same for what lacked memory, where some was given back since; answers whose it is."""
        freed, self._freed = self._freed, False
        names = {version.name for version, failure in self.failed.items() if failure.starved and freed}
        self.failed = {version: failure for version, failure in self.failed.items() if not (failure.starved and freed)}
        return names

    # ── load ─────────────────────────────────────────────────────────────────────────────────────────────────────

    async def load(self, model: Model, is_wanted: Callable[[], bool]) -> None:
        """One at a time; nothing where it is not wanted any more when its turn comes. What cannot be loaded is in
        `failed`."""
        version = ModelVersion(model.name, model.version)
        async with self._one_load:
            if not is_wanted():
                return
            old = self.served.get(version)
            if old is None:
                self.changing[version] = ModelState.LOADING
            try:
                engine = await self._engine(version, model)
            except Exception as error:
                self._fail(version, model, error)
                return
            finally:
                self.changing.pop(version, None)
            if old is not None:
                await old.host.step_down()
            self.served[version] = self._hosting.start(model, engine)
            self.failed.pop(version, None)
            del engine  # else this frame would hold it for as long as the old one drains
        log.info("model.ready", model=str(version), reloaded=old is not None)
        if old is not None:
            await self._hosting.stop(old, self._place.unload_s)
            self._free(version)

    async def _engine(self, version: ModelVersion, model: Model) -> Engine:
        """Built and warm, its memory reserved."""
        needed = await asyncio.to_thread(needed_bytes, model, self._place.device)
        try:
            self._budget.reserve(str(version), needed)
        except ValueError as error:
            raise OverBudget(str(error)) from None
        try:
            engine = await asyncio.to_thread(self._build, model, self._place.device, self._place.threads)
            self._hosting.check(engine)
            return engine
        except BaseException:
            self._budget.release(str(version), newest=True)
            raise

    def _fail(self, version: ModelVersion, model: Model, error: Exception) -> None:
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        starved = isinstance(error, OverBudget)
        self.failed[version] = Failure(digest=model.digest, reason=reason, starved=starved)
        log.error("model.broken", folder=str(model.folder), reason=reason)

    def _free(self, version: ModelVersion) -> None:
        self._budget.release(str(version))
        self._freed = True

    # ── unload ───────────────────────────────────────────────────────────────────────────────────────────────────

    async def unload(self, version: ModelVersion, is_wanted: Callable[[], bool]) -> None:
        """Nothing where it is wanted again while its last jobs are waited for."""
        self.changing[version] = ModelState.UNLOADING
        log.info("model.unloading", model=str(version))
        try:
            await self._tell()
            if not await self._done_with(version, is_wanted):
                return
            await self._hosting.stop(self.served.pop(version), self._place.unload_s)
            self._free(version)
            await self._forget(version)
        finally:
            self.changing.pop(version, None)
        log.info("model.unloaded", model=str(version))

    async def _tell(self) -> None:
        while True:
            try:
                return await self._announce()
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    async def _done_with(self, version: ModelVersion, is_wanted: Callable[[], bool]) -> bool:
        """Waits until nobody needs the version here: another worker is ready for it, or nothing of it waits or runs
        anywhere. False where it is wanted again."""
        since = time.monotonic()
        while time.monotonic() - since < QUIET_S:
            await asyncio.sleep(RETRY_S)
            if is_wanted():
                return False
            try:
                if await self._has_elsewhere(version, ModelState.READY):
                    return True
                load = await self._queue.load(version)
            except Unavailable:
                since = time.monotonic()
                continue
            if load["jobs"] or load["running"]:
                since = time.monotonic()
        return True

    async def _has_elsewhere(self, version: ModelVersion, *states: ModelState) -> bool:
        """Whether it stands so on another worker, that does not drain."""
        workers = [worker for worker in await self._registry.workers() if worker.state != "draining"]
        others = [worker for worker in workers if worker.worker_id != self._place.worker_id]
        return any(one.model == version and one.state in states for worker in others for one in worker.index)

    async def _forget(self, version: ModelVersion) -> None:
        """Frontends wait for no worker that has it, unless one is there or on its way."""
        try:
            if not await self._has_elsewhere(version, ModelState.READY, ModelState.LOADING):
                await self._registry.forget([version])
        except Unavailable as error:
            log.warning("model.not_forgotten", model=str(version), error=error.message)
