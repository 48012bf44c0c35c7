"""Plain HTTP beside gRPC, in the same event loop: /metrics, /healthz and /readyz, and, where they are on, OpenAI's API
and the page."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from millrace.errors import Unavailable
from services.frontend.models import Models
from services.frontend.readiness import Readiness

LINGER_S = 1
"""How long connections may take to end at the drain; how much longer than a call one may stand that nobody reads."""


def make_app(
    registry: CollectorRegistry,
    refresh: Callable[[], Awaitable[None]],
    readiness: Readiness,
    models: Models,
    openai: ASGIApp | None = None,
    page: Sequence[BaseRoute] = (),
) -> Starlette:
    """`refresh` is called before each collection of the registry."""

    async def metrics(_: Request) -> Response:
        await refresh()
        text = await asyncio.to_thread(generate_latest, registry)
        return Response(text, media_type=CONTENT_TYPE_LATEST)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_: Request) -> Response:
        """503 while the frontend cannot serve; a model without workers does not make it unready, but is told."""
        try:
            workers = await models.ready_workers() if readiness.redis_answers else {}
        except Unavailable:
            workers = {}
        answer = {
            "ready": readiness.ready,
            "redis": readiness.redis_answers,
            "mailbox": readiness.mailbox_subscribed,
            "draining": readiness.draining,
            "models": {model: {"ready_workers": count} for model, count in workers.items()},
        }
        return JSONResponse(answer, status_code=200 if readiness.ready else 503)

    routes: list[BaseRoute] = [Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)]
    if openai is not None:
        routes.append(Mount("/v1", openai))
    return Starlette(routes=[*routes, *page])


class Connection(H11Protocol):
    """A connection that its requests find as `scope["state"]["connection"]`. It ends itself where the caller reads
    nothing for `stall_s`, whatever waits to be sent."""

    stall_s = float("inf")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app_state = self.app_state | {"connection": self}
        self._stalled: asyncio.TimerHandle | None = None

    def abort(self) -> None:
        """At once: the caller sees that what it has is not the whole."""
        self.transport.abort()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(self.stall_s, self.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_stall()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._forget_stall()

    def _forget_stall(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None


class HttpServer(uvicorn.Server):
    """Listens from its making on; leaves signals alone."""

    def __init__(self, app: Starlette, address: str, slow_reader_s: float) -> None:
        connection = type("StallingConnection", (Connection,), {"stall_s": slow_reader_s + LINGER_S})
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            http=connection,
            ws="none",
            timeout_graceful_shutdown=LINGER_S,
        )
        super().__init__(config)
        host, _, port = address.rpartition(":")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host.strip("[]"), int(port)), family=family)
        self.address = f"{host}:{self._listener.getsockname()[1]}"

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def run_until_stopped(self) -> None:
        await self.serve([self._listener])

    def stop(self) -> None:
        self.should_exit = True

    def close(self) -> None:
        self._listener.close()
