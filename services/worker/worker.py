"""The worker process: load → announce → serve → drain.

It serves every valid model of its repository on one device, tells the registry what it is ready for, and reaps. What
it does for one model is in host.py.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import psutil
import structlog

from millrace.engine import Engine
from millrace.errors import Unavailable
from millrace.queue import JobQueue, ModelEntry, Registry, WorkerEntry, connect
from millrace.queue.bell import Bell
from services.worker import repository
from services.worker.device import EXECUTION_PROVIDERS, Device, device_name
from services.worker.host import ModelHost
from services.worker.http import HttpServer, make_pages
from services.worker.metrics import Metrics
from services.worker.settings import WorkerSettings

TICK_S = 1.0
GLANCE_S, REAP_S = 0.1, 0.5
STALLED_EXIT = 70
ALIVE_S = 10.0
"""An event loop that was not seen for longer is dead to whoever asks."""
PLATFORM = "onnxruntime_onnx"
log = structlog.get_logger()


class Worker:
    """One process, one device."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._device = Device()
        self._metrics = Metrics()
        self._metrics.watch_device(self._device.stalled_s)
        self._seen_at = time.monotonic()
        self._device_kind = repository.resolve_device(settings.device)
        self._hosts: list[ModelHost] = []
        self._entries: list[ModelEntry] = []
        self._broken: list[str] = []
        self._state = "loading"
        self._announced: tuple[str, int, int] | None = None
        self._announced_at = 0.0
        self._known_ready = asyncio.Event()
        self.http_address = ""
        self._away = False
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begins the drain."""
        self._stop.set()

    async def run(self) -> None:
        """Serves until stopped, then drains. An exception group holds LookupError where no model can be served. Raises
        ValueError where there is no such address to serve at."""
        async with AsyncExitStack() as stack:
            if self._settings.http_address:
                self._serve_http(stack)
            calls = await stack.enter_async_context(connect(self._settings.redis_url))
            self._queue = JobQueue(calls, self._settings.limits())
            self._registry, self._stack = Registry(calls), stack
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(task) for task in self._background()]
                running.append(tasks.create_task(self._load(tasks, running)))
                await self._stop.wait()
                await self._drain()
                for task in running:
                    task.cancel()

    def _serve_http(self, stack: AsyncExitStack) -> None:
        pages = make_pages(self._metrics.registry, self._tell_alive, self._tell_ready)
        server = HttpServer(self._settings.http_address, pages)
        stack.push_async_callback(asyncio.to_thread, server.close)
        self.http_address = server.address

    def _tell_alive(self) -> tuple[bool, dict[str, object]]:
        silent_s = time.monotonic() - self._seen_at
        return silent_s < ALIVE_S, {"alive": silent_s < ALIVE_S, "silent_s": round(silent_s, 1)}

    def _tell_ready(self) -> tuple[bool, dict[str, object]]:
        ready = self._state == "ready" and self._known_ready.is_set() and not self._away
        told = {"ready": ready, "state": self._state, "redis": not self._away, "models": self._served()}
        return ready, told | {"broken": list(self._broken)}

    def _background(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._every(GLANCE_S, self._announce_news),
            self._every(min(REAP_S, self._settings.lease_ms / 3000), self._reap),
            self._watch_device(),
        ]

    async def _load(self, tasks: asyncio.TaskGroup, running: list[asyncio.Task[None]]) -> None:
        """Loads one model after the other; each is served as soon as it is warm."""
        models, broken = await asyncio.to_thread(repository.scan, self._settings.models)
        for folder in broken:
            self._report_broken(str(folder.path), folder.reason)
        for model in models:
            try:
                engine = await asyncio.to_thread(repository.load, model, self._device_kind, self._settings.threads)
                self._device.widen(engine.lanes)
            except Exception as error:
                self._report_broken(str(model.folder), f"{type(error).__name__}: {error}")
                continue
            entry = _entry(model, engine)
            waits = await self._stack.enter_async_context(connect(self._settings.redis_url, timeout_s=None))
            metrics, worker_id = self._metrics.of(entry.model), self._settings.worker_id
            host = ModelHost(self._queue, Bell(waits), self._device, entry.model, engine, worker_id, metrics)
            self._metrics.watch_engine(entry.model, engine.counters)
            self._hosts.append(host)
            self._entries.append(entry)
            running.append(tasks.create_task(host.run()))
            log.info("model.ready", model=str(entry.model))
        if not self._hosts:
            raise LookupError(f"no model in {self._settings.models} can be served")
        self._state = "ready"
        await self._known_ready.wait()
        http = f" http={self.http_address}" if self.http_address else ""
        print(f"worker ready id={self._settings.worker_id} models={','.join(self._served())}{http}", flush=True)

    def _report_broken(self, folder: str, reason: str) -> None:
        log.error("model.broken", folder=folder, reason=reason)
        self._broken.append(f"{folder}: {reason}")

    def _served(self) -> list[str]:
        return [str(host.model) for host in self._hosts]

    async def _announce_news(self) -> None:
        """Announces each second, and sooner where the number of jobs or what is served has changed."""
        if self._news() != self._announced or time.monotonic() - self._announced_at >= TICK_S:
            await self._announce()

    def _news(self) -> tuple[str, int, int]:
        return self._state, self._running_jobs(), len(self._hosts)

    def _running_jobs(self) -> int:
        return sum(len(host.held) for host in self._hosts)

    async def _announce(self) -> None:
        self._announced, self._announced_at = self._news(), time.monotonic()
        memory = psutil.virtual_memory()
        entry = WorkerEntry(
            worker_id=self._settings.worker_id,
            device=device_name(self._device_kind),
            execution_provider=EXECUTION_PROVIDERS[self._device_kind],
            state=self._state,
            models=tuple(self._served()),
            broken=tuple(self._broken),
            running_jobs=self._running_jobs(),
            free_slots=sum(host.free_slots for host in self._hosts),
            memory_used_bytes=psutil.Process().memory_info().rss,
            memory_total_bytes=memory.total,
        )
        await self._registry.announce(entry, self._entries)
        self._note_redis(away=False)
        if entry.state == "ready":
            self._known_ready.set()

    async def _reap(self) -> None:
        for host in self._hosts:
            await self._queue.reap(host.model)

    async def _watch_device(self) -> None:
        """Ends the process when a step hangs: its leases then lapse, and other workers go on with the jobs."""
        while True:
            await asyncio.sleep(TICK_S)
            self._seen_at = time.monotonic()
            if self._device.stalled_s() > self._settings.stall_s:
                log.error("device.stalled", seconds=round(self._device.stalled_s(), 1))
                os._exit(STALLED_EXIT)

    async def _drain(self) -> None:
        log.info("worker.draining", jobs=self._running_jobs())
        self._state = "draining"
        try:
            async with asyncio.timeout(self._settings.drain_s + 5):
                await self._announce()
                await asyncio.gather(*(host.drain(self._settings.drain_s) for host in self._hosts))
                await self._registry.leave(self._settings.worker_id)
        except (TimeoutError, Unavailable) as error:
            log.warning("worker.drain_cut_short", error=repr(error))

    async def _every(self, seconds: float, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while True:
            try:
                await call()
            except Unavailable:
                self._note_redis(away=True)
            await asyncio.sleep(seconds)

    def _note_redis(self, *, away: bool) -> None:
        """One line when Redis goes, one when it is back."""
        if away != self._away:
            self._away = away
            log.warning("redis.away" if away else "redis.back", url=self._settings.redacted()["redis_url"])


def _entry(model: repository.Model, engine: Engine) -> ModelEntry:
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
        tasks=signature.tasks or (("infer",) if signature.outputs else ("generate",)),
        engine=model.file.engine,
        instances=engine.lanes,
        batch_delay_ms=model.file.batching.delay_ms,
        preferred_rows=tuple(model.file.batching.preferred_rows),
        response_cache=model.file.response_cache,
    )
