"""The frontend process: start → serve → drain.

Beside the calls run the mailbox, the interest, the readiness checks, the reaper and the HTTP server; should one of them
fail, the process ends.
"""

import asyncio
from contextlib import AsyncExitStack

import structlog
from starlette.applications import Starlette

from millrace.errors import Unavailable
from millrace.queue import connect
from millrace.telemetry import tell_ended_job
from services.frontend.access.gate import open_gate
from services.frontend.building import Parts
from services.frontend.http import HttpServer
from services.frontend.rpc import OPTIONS, GrpcServer
from services.frontend.scaler import server as scaler
from services.frontend.settings import FrontendSettings
from services.frontend.tls import open_certificates

GRACE_S = 1.0
log = structlog.get_logger()


class Frontend:
    """One process's worth of serving. The addresses are known once `ready` is set; where metrics and health have none
    of their own, `health_address` is `http_address`."""

    def __init__(self, settings: FrontendSettings) -> None:
        self._settings = settings
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        self.grpc_address = self.http_address = self.health_address = self.scaler_address = ""

    def stop(self) -> None:
        """Begins the drain."""
        self._stop.set()

    async def run(self) -> None:
        """Serves until stopped. Raises ValueError where Redis, or a file, cannot be what the settings say."""
        settings = self._settings
        redis = await asyncio.to_thread(settings.redis_server)
        gate = await open_gate(settings)
        self._certificates = await open_certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
        async with AsyncExitStack() as stack:
            calls = await stack.enter_async_context(connect(redis))
            subscription = await stack.enter_async_context(connect(redis, timeout_s=None))
            barriers = await stack.enter_async_context(connect(redis))
            parts = self._parts = Parts(settings, calls, subscription, barriers, gate)
            self.metrics, self.readiness = parts.metrics, parts.readiness
            self.mailbox, self.interest = parts.mailbox, parts.interest
            self._open_http(stack)
            await self._start_grpc(stack)
            await self._start_scaler(stack)
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(gate.run()),
                    tasks.create_task(parts.mailbox.run()),
                    tasks.create_task(parts.interest.run()),
                    tasks.create_task(parts.readiness.run(self._grpc.set_health)),
                    tasks.create_task(parts.memory.run()),
                    tasks.create_task(parts.durability.run()),
                    tasks.create_task(parts.totals.run(parts.cache.statistics)),
                    tasks.create_task(self._reap()),
                    tasks.create_task(self._announce()),
                ]
                if self._certificates is not None:
                    parts.metrics.watch_certificate(self._certificates.expires_in_s)
                    background.append(tasks.create_task(self._certificates.run()))
                serving = [tasks.create_task(server.run_until_stopped()) for server in self._listening]
                await self._stop.wait()
                await self._drain()
                for server in self._listening:
                    server.stop()
                await asyncio.gather(*serving)
                for task in background:
                    task.cancel()

    def _open_http(self, stack: AsyncExitStack) -> None:
        """Metrics and health have a port of their own, or stand on that of everything else."""
        settings, parts = self._settings, self._parts
        beside = [] if settings.health_address else parts.health
        app = Starlette(routes=[*beside, *parts.web])
        context = self._certificates.http_context() if self._certificates else None
        self._http = HttpServer(app, settings.http_address, settings.slow_reader_s, context)
        stack.callback(self._http.close)
        self._listening = [self._http]
        self.http_address = self.health_address = self._http.address
        if settings.health_address:
            health = HttpServer(Starlette(routes=parts.health), settings.health_address, settings.slow_reader_s)
            stack.callback(health.close)
            self._listening.append(health)
            self.health_address = health.address

    async def _start_grpc(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        self._grpc = GrpcServer(self._parts.services, max(settings.max_request_bytes, settings.max_tensor_bytes))
        credentials = self._certificates.grpc_credentials() if self._certificates else None
        await self._grpc.start(settings.grpc_address, credentials)
        stack.push_async_callback(self._grpc.stop, 0)
        self.grpc_address = self._grpc.address

    async def _start_scaler(self, stack: AsyncExitStack) -> None:
        if not self._settings.scaler_address:
            return
        if not self._settings.scale_from_zero_s:
            log.warning("scaler.cannot_wake", reason="scale_from_zero_s is 0: without a worker no job waits")
        serving = scaler.serve(self._settings.scaler_address, self._parts.scaler, self._grpc.health, OPTIONS)
        self.scaler_address = await stack.enter_async_context(serving)

    async def _announce(self) -> None:
        await self.readiness.once_ready.wait()
        addresses = {"grpc": self.grpc_address, "http": self.http_address}
        if self._settings.health_address:
            addresses["health"] = self.health_address
        print("frontend ready", *(f"{name}={address}" for name, address in addresses.items()), flush=True)
        tls = self._certificates is not None
        log.info("frontend.ready", **addresses, tls=tls, id=self._settings.frontend_id)
        self.ready.set()

    async def _reap(self) -> None:
        """Often enough that Redis never takes the pause for an outage."""
        pause_s = min(1.0, self._settings.lease_ms / 3000)
        while True:
            try:
                for entry in await self._parts.models.models():
                    for job in await self._parts.queue.reap(entry.model):
                        tell_ended_job(job)
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
        self._parts.border.drain()
        await self._grpc.set_health(False)
        closing = asyncio.create_task(self._grpc.stop(drain_s + GRACE_S))
        try:
            async with asyncio.timeout(drain_s):
                await self.interest.empty()
        except TimeoutError:
            log.warning("frontend.drain_cut_short", streams=len(self.interest))
        self.interest.fail_all(Unavailable("this frontend is draining", reason="DRAINING"))
        await self._grpc.stop(GRACE_S)
        await closing
