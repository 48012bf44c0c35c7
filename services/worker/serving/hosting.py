"""The versions that are loaded: how an engine gets its host, and how both go."""

import asyncio
import gc
from dataclasses import dataclass

import structlog

from millrace.engine import Engine
from millrace.errors import Unavailable
from millrace.queue import JobQueue, ModelEntry, ModelVersion, connect
from millrace.queue.bell import PATIENCE_S, Bell
from millrace.queue.connection import Redis, Server
from services.worker.device import Device
from services.worker.host import ModelHost
from services.worker.metrics import Metrics
from services.worker.repository.model import Model

PLATFORM = "onnxruntime_onnx"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Served:
    """One version with an engine."""

    model: Model
    entry: ModelEntry
    host: ModelHost
    task: asyncio.Task[None]


class Hosting:
    """Starts and stops hosts. `tasks` is where they run: one that fails ends the process."""

    def __init__(
        self,
        queue: JobQueue,
        server: Server,
        device: Device,
        metrics: Metrics,
        worker_id: str,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._queue, self._server, self._worker_id = queue, server, worker_id
        self._device, self._metrics, self._tasks = device, metrics, tasks
        self._served: list[Served] = []

    @property
    def hosts(self) -> list[ModelHost]:
        """Those included that only finish what they hold."""
        return [served.host for served in self._served]

    def start(self, model: Model, engine: Engine) -> Served:
        self._device.widen(engine.lanes)
        entry = describe(model, engine)
        waits = connect(self._server, timeout_s=PATIENCE_S)
        metrics = self._metrics.of(entry.model)
        host = ModelHost(self._queue, Bell(waits), self._device, entry.model, engine, self._worker_id, metrics)
        self._metrics.watch_engine(entry.model, engine.counters, getattr(engine, "gauges", dict))
        served = Served(model=model, entry=entry, host=host, task=self._tasks.create_task(_run(host, waits)))
        self._served.append(served)
        return served

    async def stop(self, served: Served, drain_s: float) -> None:
        """Returns when nothing is left of it, its memory included. Jobs that are not done in `drain_s` are handed
        back."""
        try:
            await served.host.drain(drain_s)
        except Unavailable as error:
            log.warning("jobs.left_to_lapse", model=str(served.entry.model), error=error.message)
        served.host.close()
        await asyncio.wait([served.task])
        self._device.narrow(served.entry.instances)
        self._served.remove(served)
        if not self._has(served.entry.model):
            self._metrics.forget(served.entry.model)
        await asyncio.to_thread(gc.collect)

    def check(self, engine: Engine) -> None:
        """Raises ValueError where the engine runs more at once than the device can."""
        self._device.widen(engine.lanes)
        self._device.narrow(engine.lanes)

    def cancel(self) -> None:
        """Ends all hosts as they are."""
        for served in self._served:
            served.task.cancel()

    def _has(self, model: ModelVersion) -> bool:
        return any(served.entry.model == model for served in self._served)


async def _run(host: ModelHost, waits: Redis) -> None:
    async with waits:
        await host.run()


def describe(model: Model, engine: Engine) -> ModelEntry:
    """What frontends are told of it."""
    signature = engine.signature
    return ModelEntry(
        name=model.name,
        version=model.version,
        task=model.file.task,
        digest=model.digest,
        description=model.file.description,
        context_length=model.file.context_length or 0,
        platform=PLATFORM,
        inputs=signature.inputs,
        outputs=signature.outputs,
        max_batch_size=signature.max_batch_size,
        tasks=signature.tasks,
        engine=model.file.engine,
        instances=engine.lanes,
        batch_delay_ms=model.file.batching.delay_ms,
        preferred_rows=tuple(model.file.batching.preferred_rows),
        response_cache=model.file.response_cache,
    )
