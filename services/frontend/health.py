"""/metrics, /healthz and /readyz."""

import asyncio
from collections.abc import Awaitable, Callable

from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from millrace.errors import Unavailable
from millrace.exposition import expose
from services.frontend.access.closed import Closed
from services.frontend.access.gate import Gate
from services.frontend.models import Models
from services.frontend.readiness import Readiness


def make_health(
    registry: CollectorRegistry,
    refresh: Callable[[], Awaitable[None]],
    readiness: Readiness,
    models: Models,
    gate: Gate,
) -> list[Route]:
    """`refresh` is called before each collection of the registry. Behind a gate that is guarded only administrators see
    /metrics, and /readyz names no model."""

    async def metrics(request: Request) -> Response:
        await refresh()
        media_type, text = await asyncio.to_thread(expose, registry, request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"alive": True})

    async def readyz(_: Request) -> Response:
        """503 while the frontend cannot serve; a model without workers does not make it unready, but is told."""
        try:
            workers = await models.ready_workers() if readiness.redis_answers and not gate.guarded else {}
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

    return [
        Route("/metrics", Closed(Route("/metrics", metrics).app, gate)),
        Route("/healthz", healthz),
        Route("/readyz", readyz),
    ]
