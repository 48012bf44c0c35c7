"""The worker process: load → announce → serve → drain.

It serves what is wanted of its repository on one device, tells the registry how that stands, and reaps. What it does
for one model is in host.py, how models come and go in serving.py.
"""

import asyncio
import os
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import psutil
import structlog

from millrace.errors import Unavailable
from millrace.queue import (
    Carried,
    Commands,
    Indexed,
    JobQueue,
    ModelState,
    Registry,
    Statistics,
    WorkerEntry,
    connect,
)
from millrace.queue.connection import Redis, Server
from millrace.telemetry import tell_ended_job
from services.worker import repository
from services.worker.device import EXECUTION_PROVIDERS, Device, device_name
from services.worker.http import HttpServer, make_pages
from services.worker.metrics import Metrics
from services.worker.repository.budget import Budget
from services.worker.repository.source import open_source
from services.worker.serving.contents import Contents
from services.worker.serving.hosting import Hosting
from services.worker.serving.lifecycle import Lifecycle, Place
from services.worker.serving.serving import Plan, Serving
from services.worker.settings import WorkerSettings, names

TICK_S = 1.0
GLANCE_S, REAP_S = 0.1, 0.5
STALLED_EXIT = 70
ALIVE_S = 10.0
"""An event loop that was not seen for longer is dead to whoever asks."""
News = tuple[str, int, tuple[Indexed, ...], tuple[Carried, ...]]
log = structlog.get_logger()


class Worker:
    """One process, one device. Raises ValueError where a setting is of no use here."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._device = Device()
        self._metrics = Metrics()
        self._metrics.watch_device(self._device.stalled_s)
        self._metrics.watch_readiness(lambda: self._tell_ready()[0])
        self._seen_at = time.monotonic()
        self._device_kind = repository.resolve_device(settings.device)
        source = open_source(settings.models, settings.model_cache.expanduser())
        self._contents = Contents(source, names(settings.operator_domains))
        self._state = "loading"
        self._announcing = asyncio.Lock()
        self._announced: News | None = None
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
        ValueError where there is no such address to serve at, or Redis cannot be what the settings say."""
        redis = self._settings.redis_server()
        async with AsyncExitStack() as stack:
            if self._settings.http_address:
                self._serve_http(stack)
            calls = await stack.enter_async_context(connect(redis))
            async with asyncio.TaskGroup() as tasks:
                self._build(redis, calls, tasks)
                running = [tasks.create_task(task) for task in self._background()]
                serving = tasks.create_task(self._serve())
                await self._stop.wait()
                serving.cancel()
                self._serving.stop()
                await self._drain()
                self._hosting.cancel()
                for task in running:
                    task.cancel()

    def _build(self, redis: Server, calls: Redis, tasks: asyncio.TaskGroup) -> None:
        settings = self._settings
        self._queue, self._registry = JobQueue(calls, settings.limits()), Registry(calls)
        self._statistics = Statistics(calls, settings.worker_id)
        place = Place(
            worker_id=settings.worker_id,
            device=self._device_kind,
            threads=settings.threads,
            unload_s=settings.unload_s,
        )
        self._hosting = Hosting(self._queue, redis, self._device, self._metrics, settings.worker_id, tasks)
        budget = Budget(settings.memory_bytes)
        life = Lifecycle(place, self._hosting, budget, repository.load, self._queue, self._registry, self._announce)
        plan = Plan(repository=settings.repository, load=names(settings.load), poll_s=settings.poll_s)
        self._serving = Serving(plan, self._contents, life, Commands(calls), tasks)

    def _serve_http(self, stack: AsyncExitStack) -> None:
        pages = make_pages(self._metrics.registry, self._tell_alive, self._tell_ready)
        server = HttpServer(self._settings.http_address, pages)
        stack.push_async_callback(asyncio.to_thread, server.close)
        self.http_address = server.address

    def _tell_alive(self) -> tuple[bool, dict[str, object]]:
        silent_s = time.monotonic() - self._seen_at
        return silent_s < ALIVE_S, {"alive": silent_s < ALIVE_S, "silent_s": round(silent_s, 1)}

    def _tell_ready(self) -> tuple[bool, dict[str, object]]:
        """As it was last announced, since it is asked on another thread."""
        ready = self._state == "ready" and self._known_ready.is_set() and not self._away
        index = self._announced[2] if self._announced else ()
        models = [str(one.model) for one in index if one.state is ModelState.READY]
        broken = [f"{one.model}: {one.reason}" for one in index if one.state is ModelState.UNAVAILABLE]
        told = {"ready": ready, "state": self._state, "redis": not self._away, "models": models}
        return ready, told | {"unavailable": broken}

    def _background(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._every(GLANCE_S, self._announce_news),
            self._every(min(REAP_S, self._settings.lease_ms / 3000), self._reap),
            self._statistics.run(self._metrics.statistics),
            self._watch_device(),
        ]

    async def _serve(self) -> None:
        """Loads one model after the other; each is served as soon as it is warm."""
        await self._serving.begin()
        self._state = "ready"
        await self._known_ready.wait()
        http = f" http={self.http_address}" if self.http_address else ""
        models = ",".join(str(entry.model) for entry in self._serving.entries)
        print(f"worker ready id={self._settings.worker_id} models={models}{http}", flush=True)
        await self._serving.run()

    async def _announce_news(self) -> None:
        """Announces each second, and sooner where the number of jobs or what is served has changed."""
        if self._news() != self._announced or time.monotonic() - self._announced_at >= TICK_S:
            await self._announce()

    def _news(self) -> News:
        return self._state, self._running_jobs(), self._serving.index, self._serving.carried

    def _running_jobs(self) -> int:
        return sum(len(host.held) for host in self._hosting.hosts)

    async def _announce(self) -> None:
        """One at a time, so that the last word is the newest."""
        async with self._announcing:
            self._announced, self._announced_at = self._news(), time.monotonic()
            state, running_jobs, index, carried = self._announced
            entry = WorkerEntry(
                worker_id=self._settings.worker_id,
                device=device_name(self._device_kind),
                execution_provider=EXECUTION_PROVIDERS[self._device_kind],
                state=state,
                repository=self._settings.repository,
                index=index,
                carried=carried,
                running_jobs=running_jobs,
                free_slots=sum(host.free_slots for host in self._hosting.hosts),
                memory_used_bytes=psutil.Process().memory_info().rss,
                memory_total_bytes=psutil.virtual_memory().total,
            )
            await self._registry.announce(entry, self._serving.entries)
        self._note_redis(away=False)
        if entry.state == "ready":
            self._known_ready.set()

    async def _reap(self) -> None:
        for model in {host.model for host in self._hosting.hosts}:
            for job in await self._queue.reap(model):
                tell_ended_job(job)

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
                await asyncio.gather(*(host.drain(self._settings.drain_s) for host in self._hosting.hosts))
                await self._statistics.announce(self._metrics.statistics())
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
