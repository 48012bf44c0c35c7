"""What stands around every exchange: counting, a caller who leaves, and the one place where errors become answers."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from millrace import tracing
from millrace.errors import Code, MillraceError
from services.frontend.access.caller import Caller
from services.frontend.access.credentials import Credentials
from services.frontend.access.gate import Gate
from services.frontend.metrics import Metrics
from services.frontend.openai.exchange import JSON, Exchange
from services.frontend.status import Unexpected

MOUNT = "/v1"
Behaviour = Callable[[Exchange], Coroutine[Any, Any, None]]
log = structlog.get_logger()


class Border:
    """Makes routes of behaviours."""

    def __init__(self, metrics: Metrics, slow_reader_s: float, max_request_bytes: int, gate: Gate) -> None:
        self.metrics, self._slow_reader_s, self._max_request_bytes = metrics, slow_reader_s, max_request_bytes
        self._gate = gate

    def route(self, method: str, path: str, behaviour: Behaviour) -> Route:
        """`path` is behind the API's own."""
        reading = partial(Exchange.read, most_bytes=self._max_request_bytes, kind=JSON)
        name = f"{method} {MOUNT}{path}"
        endpoint = Endpoint(name, self.metrics, self._slow_reader_s, reading, behaviour, self._gate)
        return Route(path, endpoint, methods=[method])


class Endpoint:
    """What stands around every exchange, as an ASGI application. `read` gets what the caller has sent, which nobody
    looks at before it is known who sends it. `admin`: only administrators may ask."""

    def __init__(
        self,
        name: str,
        metrics: Metrics,
        slow_reader_s: float,
        read: Behaviour,
        behaviour: Behaviour,
        gate: Gate,
        *,
        admin: bool = False,
    ) -> None:
        self._name, self._metrics, self._slow_reader_s = name, metrics, slow_reader_s
        self._read, self._behaviour, self._gate, self._admin = read, behaviour, gate, admin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, self._slow_reader_s)
        method, _, route = self._name.partition(" ")
        about: tracing.Attributes = {"http.request.method": method, "http.route": route, "url.scheme": scope["scheme"]}
        with tracing.serving(self._name, exchange.request.headers.get(tracing.KEY, ""), about):
            await self._answer(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        code, reason = Code.CANCELLED, ""
        try:
            exchange.admit = partial(self._admit, exchange.credentials)
            exchange.caller = exchange.admit()
            await self._read(exchange)
            await _while_there(exchange, self._behaviour(exchange))
            code = Code.OK
        except ClientDisconnect:
            log.debug("caller.gone", path=self._name, job_id=exchange.job_id)
        except MillraceError as error:
            code, reason = error.code, error.reason
            self._metrics.refused.labels(error.reason).inc()
            await exchange.fail(error)
        except Exception:
            code = Code.INTERNAL
            log.exception("call.failed", method=self._name, job_id=exchange.job_id)
            await exchange.fail(Unexpected())
        finally:
            self._metrics.calls.labels(self._name, code.name).inc()
            told: tracing.Attributes = {
                "http.response.status_code": exchange.status,
                "millrace.job_id": exchange.job_id,
            }
            tracing.answered(tracing.current(), code, reason, told)

    def _admit(self, credentials: Credentials) -> Caller:
        caller = self._gate.admit(credentials)
        if self._admin:
            caller.policy.require_admin()
        return caller


async def _while_there(exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
    """Raises ClientDisconnect, with the work cancelled, where the caller leaves before it is done."""
    working, watching = asyncio.create_task(work), asyncio.create_task(exchange.until_gone())
    tasks = (working, watching)
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        working.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def not_found(_: Request, error: Exception) -> Response:
    """Of the router: no such path, or not by this method."""
    status = getattr(error, "status_code", 500)
    told = {"message": getattr(error, "detail", ""), "type": "invalid_request_error", "param": None, "code": None}
    return JSONResponse({"error": told}, status, getattr(error, "headers", None))
