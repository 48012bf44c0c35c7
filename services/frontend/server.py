"""The frontend process: start → serve → drain.

Beside the calls run the mailbox, the interest, the readiness checks, the reaper and the HTTP server; should one of them
fail, the process ends.
"""

import asyncio
from contextlib import AsyncExitStack

import grpc.aio
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]
from starlette.applications import Starlette
from starlette.routing import Route

from millrace.errors import Unavailable
from millrace.queue import Commands, Durability, Fast, JobQueue, Mailbox, Registry, Replicated, Statistics, connect
from millrace.queue.connection import Redis
from services.frontend import fleet, jobs, servicer, tasks
from services.frontend.admission import Admission
from services.frontend.border import Border
from services.frontend.cache import ResponseCache
from services.frontend.fleet import Fleet
from services.frontend.fleet_metrics import FleetMetrics
from services.frontend.http import HttpServer, make_app
from services.frontend.interest import Interest
from services.frontend.jobs import Jobs
from services.frontend.memory import Memory
from services.frontend.metrics import Metrics
from services.frontend.models import Models
from services.frontend.oip import inference
from services.frontend.oip.catalogue import Catalogue
from services.frontend.oip.extensions import Extensions
from services.frontend.oip.inference import Inference
from services.frontend.oip.repository import Repository
from services.frontend.oip.statistics import ModelStatistics
from services.frontend.openai import border as openai_border
from services.frontend.openai.options import Options
from services.frontend.openai.routes import make_openai
from services.frontend.page import border as page_border
from services.frontend.page.feed import Feed
from services.frontend.page.guard import Guard
from services.frontend.page.routes import make_page
from services.frontend.page.snapshot import Snapshots
from services.frontend.readiness import Readiness
from services.frontend.relay import Relays
from services.frontend.rules import Bounds
from services.frontend.servicer import TextGeneration
from services.frontend.settings import FrontendSettings
from services.frontend.tasks import Tasks
from services.frontend.tracing import Tracing

GRACE_S = 1.0
MESSAGE_LIMITS = 2
"""gRPC takes messages of so many times what a request may have: those between are refused in our own words."""
SERVICES = (
    servicer.SERVICE,
    tasks.EMBEDDING,
    tasks.CLASSIFICATION,
    tasks.SPEECH,
    inference.SERVICE,
    jobs.SERVICE,
    fleet.SERVICE,
)
PENDING_CALLS = 10_000
"""That wait for this process to look at them: beyond so many gRPC cancels some at random, beyond twice as many each.
Its own 1,000 are fewer than come back at once when another frontend has gone."""
OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.server.max_pending_requests", PENDING_CALLS),
    ("grpc.server.max_pending_requests_hard_limit", 2 * PENDING_CALLS),
    ("grpc.so_reuseport", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
    ("grpc.http2.max_ping_strikes", 0),
)
log = structlog.get_logger()


class Frontend:
    """One process's worth of serving. `grpc_address` and `http_address` are known once `ready` is set."""

    def __init__(self, settings: FrontendSettings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.grpc_address = self.http_address = ""

    def stop(self) -> None:
        """Begins the drain."""
        self._stop.set()

    async def run(self) -> None:
        """Serves until stopped."""
        async with AsyncExitStack() as stack:
            calls = await stack.enter_async_context(connect(self._settings.redis_url))
            subscription = await stack.enter_async_context(connect(self._settings.redis_url, timeout_s=None))
            barriers = await stack.enter_async_context(connect(self._settings.redis_url))
            self._build(calls, subscription, barriers)
            await self._start_grpc()
            self.http_address = self._http.address
            stack.callback(self._http.close)
            stack.push_async_callback(self._grpc.stop, 0)
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(self.mailbox.run()),
                    tasks.create_task(self.interest.run()),
                    tasks.create_task(self.readiness.run(self._set_health)),
                    tasks.create_task(self._memory.run()),
                    tasks.create_task(self._durability.run()),
                    tasks.create_task(self._totals.run(self._cache.statistics)),
                    tasks.create_task(self._reap()),
                    tasks.create_task(self._announce()),
                ]
                serving = tasks.create_task(self._http.run_until_stopped())
                await self._stop.wait()
                await self._drain()
                self._http.stop()
                await serving
                for task in background:
                    task.cancel()

    def _build(self, calls: Redis, subscription: Redis, barriers: Redis) -> None:
        settings = self._settings
        bounds = Bounds(
            max_request_bytes=settings.max_request_bytes,
            max_tensor_bytes=settings.max_tensor_bytes,
            default_timeout_s=settings.default_timeout_s,
            max_timeout_s=settings.max_timeout_s,
            max_resume_window_s=settings.max_resume_window_s,
        )
        self.metrics = Metrics()
        self.queue = JobQueue(calls, settings.limits())
        self.mailbox = Mailbox(subscription, settings.frontend_id)
        self.interest = Interest(self.queue, self.mailbox, settings.frontend_id, settings.outage_s)
        self.readiness = Readiness(calls, self.mailbox)
        self._models = Models(Registry(calls))
        self._memory = Memory(calls)
        self._durability: Durability = Fast()
        if settings.durability == "replicated":
            self._durability = Replicated(barriers, replicas=settings.replicas, outage_s=settings.outage_s)
        admission = Admission(
            self.queue,
            self._models,
            self.readiness,
            self._memory,
            self._durability,
            self.metrics,
            weights=settings.tenant_weights,
            scale_from_zero_s=settings.scale_from_zero_s,
        )
        tracing = Tracing()
        relays = Relays(self.queue, admission, self.interest, self._durability, self.metrics, tracing)
        self._cache = ResponseCache(settings.response_cache_bytes, self.metrics)
        self._totals = Statistics(calls, settings.frontend_id)
        self._border = Border(self.metrics, settings.slow_reader_s)
        typed = Tasks(admission, relays, bounds, self._cache)
        self._services = {
            servicer.SERVICE: TextGeneration(admission, relays, bounds).methods(self._border),
            **typed.services(self._border),
            inference.SERVICE: {
                **Catalogue(self._models, self.readiness, bounds, caches=self._cache.enabled).methods(self._border),
                **ModelStatistics(self._models, self._totals, self.readiness, bounds).methods(self._border),
                **Extensions(self._models, self.readiness, tracing, bounds).methods(self._border),
                **Inference(admission, relays, bounds, self._cache).methods(self._border),
                **Repository(
                    self._models, Commands(calls), self.readiness, bounds, commanded=settings.model_control
                ).methods(self._border),
            },
            jobs.SERVICE: Jobs(self.queue, admission, relays, bounds).methods(self._border),
            fleet.SERVICE: Fleet(self.queue, self._models, self.readiness).methods(self._border),
        }
        openai = self._make_openai(admission, relays, bounds, typed) if settings.openai else None
        fleet_metrics = FleetMetrics(self.queue, self._models, self._totals, self.readiness)
        self.metrics.registry.register(fleet_metrics)
        page = self._make_page(admission, relays, bounds, typed) if settings.page else []
        app = make_app(self.metrics.registry, fleet_metrics.refresh, self.readiness, self._models, openai, page)
        self._http = HttpServer(app, settings.http_address, settings.slow_reader_s)

    def _make_openai(self, admission: Admission, relays: Relays, bounds: Bounds, typed: Tasks) -> Starlette:
        settings = self._settings
        border = openai_border.Border(self.metrics, settings.slow_reader_s, settings.max_request_bytes)
        options = Options(bounds=bounds, resume_window_s=settings.openai_resume_window_s)
        origins = settings.openai_cors_origins
        return make_openai(border, options, admission, relays, self._models, typed, origins)

    def _make_page(self, admission: Admission, relays: Relays, bounds: Bounds, typed: Tasks) -> list[Route]:
        settings = self._settings
        snapshots = Snapshots(
            self.queue,
            self._models,
            self._totals,
            self.readiness,
            self.metrics,
            frontend_id=settings.frontend_id,
            openai=settings.openai,
        )
        border = page_border.Border(self.metrics, settings.slow_reader_s, Guard(settings.page_hosts))
        feed = Feed(snapshots.read, self.readiness)
        return make_page(border, feed, typed, self.queue, admission, relays, bounds)

    async def _start_grpc(self) -> None:
        largest = MESSAGE_LIMITS * max(self._settings.max_request_bytes, self._settings.max_tensor_bytes)
        self._grpc = grpc.aio.server(options=(*OPTIONS, ("grpc.max_receive_message_length", largest)))
        for name, methods in self._services.items():
            self._grpc.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(name, methods)])
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._grpc)
        reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), self._grpc)
        await self._set_health(False)
        host, _, _ = self._settings.grpc_address.rpartition(":")
        port = self._grpc.add_insecure_port(self._settings.grpc_address)
        self.grpc_address = f"{host}:{port}"
        await self._grpc.start()

    async def _set_health(self, ready: bool) -> None:
        status = health_pb2.HealthCheckResponse.SERVING if ready else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *SERVICES):
            await self._health.set(service, status)

    async def _announce(self) -> None:
        await self.readiness.once_ready.wait()
        print(f"frontend ready grpc={self.grpc_address} http={self.http_address}", flush=True)
        log.info("frontend.ready", grpc=self.grpc_address, http=self.http_address, id=self._settings.frontend_id)
        self.ready.set()

    async def _reap(self) -> None:
        """Often enough that Redis never takes the pause for an outage."""
        pause_s = min(1.0, self._settings.lease_ms / 3000)
        while True:
            try:
                for entry in await self._models.models():
                    await self.queue.reap(entry.model)
            except Unavailable as error:
                log.debug("reap.waiting", error=error.message)
            await asyncio.sleep(pause_s)

    async def _drain(self) -> None:
        """Sends callers elsewhere: every connection at once, and after a while the last of the streams.

        Closing the door tells each connection to go (GOAWAY): its open calls go on, and its next ones are made on
        another connection, behind a virtual IP on another frontend. A call that crosses this word ends with CANCELLED
        (grpc#41785), which the published service config retries as it does UNAVAILABLE.
        """
        drain_s = self._settings.drain_s
        log.info("frontend.draining", streams=len(self.interest))
        self.readiness.draining = True
        self._border.drain()
        await self._set_health(False)
        closing = asyncio.create_task(self._grpc.stop(drain_s + GRACE_S))
        try:
            async with asyncio.timeout(drain_s):
                await self.interest.empty()
        except TimeoutError:
            log.warning("frontend.drain_cut_short", streams=len(self.interest))
        self.interest.fail_all(Unavailable("this frontend is draining", reason="DRAINING"))
        await self._grpc.stop(GRACE_S)
        await closing
