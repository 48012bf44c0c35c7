"""Plain HTTP beside gRPC: /metrics, /healthz and /readyz, in the same event loop."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from millrace.errors import Unavailable
from services.frontend.models import Models
from services.frontend.readiness import Readiness


def make_app(registry: CollectorRegistry, readiness: Readiness, models: Models) -> Starlette:
    async def metrics(_: Request) -> Response:
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

    return Starlette(routes=[Route("/metrics", metrics), Route("/healthz", healthz), Route("/readyz", readyz)])


class HttpServer(uvicorn.Server):
    """Listens from its making on; leaves signals alone."""

    def __init__(self, app: Starlette, address: str) -> None:
        super().__init__(uvicorn.Config(app, lifespan="off", log_config=None, access_log=False))
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
