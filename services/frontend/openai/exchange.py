"""One HTTP request and its answer, whole or streamed.

An error before the answer has begun is a status; behind that it is an event. Where the stream could go on elsewhere the
connection is cut instead, so that no reader takes it for complete.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from millrace.errors import InvalidRequest, MillraceError, Violation
from services.frontend import flight
from services.frontend.access.caller import Caller
from services.frontend.access.credentials import Credentials
from services.frontend.call import JOB_ID_KEY, Call
from services.frontend.openai.errors import describe, to_refusal
from services.frontend.openai.events import error_event
from services.frontend.openai.fields import to_json

JSON = "application/json"
PING, PING_S = b":\n", 15.0
"""A comment line, and how long a stream may be silent without one: proxies take silence for an end. No empty line
follows it, which some readers would take for an event."""
REQUEST_ID = "x-request-id"
REQUEST_ID_CHARACTERS = 200
ERROR_S = 2.0
"""How long an error may wait behind events that the caller does not read."""
STREAM_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}
"""The second keeps nginx from gathering events."""


class HttpCall(Call):
    """One job of an exchange; what it sends is written by `write`."""

    def __init__(
        self,
        caller: Caller,
        job_id: str,
        slow_reader_s: float,
        write: Callable[[bytes], Awaitable[None]],
        *,
        wants_flight: bool,
    ) -> None:
        super().__init__(slow_reader_s)
        self.caller, self.job_id, self._write = caller, job_id, write
        self._wants_flight = wants_flight

    @property
    def wants_flight(self) -> bool:
        return self._wants_flight

    @property
    def remaining_s(self) -> float | None:
        return None

    async def begin(self) -> None:
        """The headers go with the first result: until then an error can still be a status."""

    async def write(self, message: bytes) -> None:
        await self._write(message)


class Exchange:
    """One HTTP request. `job_id` is told with the answer once it is set."""

    caller: Caller
    admit: Callable[[], Caller]
    """Both set by the border, before anything else is done for the request: who asks, and who that is as of now. It
    raises Denied."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, slow_reader_s: float) -> None:
        self._scope, self._receive, self._send, self._slow_reader_s = scope, receive, send, slow_reader_s
        self.request = Request(scope, receive)
        self.begun = False
        self._sending = asyncio.Lock()
        self._sent_at = 0.0
        self._late = False
        self.body = b""
        self.job_id = ""
        self.status = 0
        """Of the answer, once it has begun."""
        self._call: HttpCall | None = None

    @property
    def credentials(self) -> Credentials:
        """What the request's headers say of who asks."""
        return Credentials.of(self.request.headers.items())

    @property
    def named(self) -> str:
        """The name that the caller gives the job; empty where it gives none."""
        return self.request.headers.get(JOB_ID_KEY, "")

    def call(self, job_id: str, write: Callable[[bytes], Awaitable[None]]) -> HttpCall:
        wanted = self.request.headers.get(flight.KEY) == flight.WANTED
        self._call = HttpCall(self.caller, job_id, self._slow_reader_s, write, wants_flight=wanted)
        return self._call

    async def read(self, *, most_bytes: int, kind: str | None = None) -> None:
        """Raises InvalidRequest where the body is larger, is not said to be of this kind, or does not come."""
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._slow_reader_s):
                async for chunk in self.request.stream():
                    chunks.append(chunk)
                    size += len(chunk)
                    if size > most_bytes:
                        raise InvalidRequest([Violation("", f"the body has more than {most_bytes} bytes")])
        except TimeoutError:
            self._late = True
            raise InvalidRequest([Violation("", "the body did not come in time")]) from None
        self.body = b"".join(chunks)
        said = self.request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if self.request.method == "POST" and kind not in (None, said):
            raise InvalidRequest([Violation("content-type", f"must be {kind}")])

    async def reply(self, answer: object) -> None:
        """A whole answer, as JSON."""
        await self.reply_text(to_json(answer))

    async def reply_text(self, answer: str) -> None:
        """One that is JSON already."""
        await self._respond(Response(answer, media_type=JSON))

    async def reply_nothing(self) -> None:
        """To a reader of events: there is no more, do not come back."""
        await self._respond(Response(status_code=204))

    async def event(self, data: bytes) -> None:
        """Part of a stream. Waits while the caller does not read."""
        async with self._sending:
            if not self.begun:
                self.begun, self.status = True, 200
                head = Response(headers=STREAM_HEADERS | self._headers(), media_type="text/event-stream")
                del head.headers["content-length"]
                await self._send({"type": "http.response.start", "status": 200, "headers": head.raw_headers})
            if data:
                await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self._sent_at = asyncio.get_running_loop().time()

    @asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Meanwhile a silent stream says that it is there."""
        pinging = asyncio.create_task(self._ping())
        try:
            yield
        finally:
            pinging.cancel()
            await asyncio.gather(pinging, return_exceptions=True)

    async def end(self) -> None:
        """Of a stream."""
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def fail(self, error: MillraceError) -> None:
        if not self.begun:
            refusal = to_refusal(error)
            await self._respond(Response(refusal.body, refusal.status, refusal.headers, media_type=JSON))
        elif error.retryable:
            await self._cut()
        else:
            await self._end_with(error)

    async def until_gone(self) -> None:
        """Returns when the caller has left."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _ping(self) -> None:
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        while True:
            await asyncio.sleep(self._sent_at + PING_S - loop.time())
            if loop.time() >= self._sent_at + PING_S:
                await self.event(PING)

    async def _end_with(self, error: MillraceError) -> None:
        try:
            async with asyncio.timeout(ERROR_S):
                await self.event(error_event(describe(error)))
                await self.end()
        except TimeoutError:
            await self._cut()

    async def _cut(self) -> None:
        self._scope["state"]["connection"].abort()
        await self.until_gone()

    async def _respond(self, response: Response) -> None:
        self.begun, self.status = True, response.status_code
        response.headers.update(self._headers())
        await response(self._scope, self._receive, self._send)

    def _headers(self) -> dict[str, str]:
        """A connection on which the request did not come is of no use any more."""
        request_id = self.request.headers.get(REQUEST_ID, "")[:REQUEST_ID_CHARACTERS]
        told = {JOB_ID_KEY: self.job_id, REQUEST_ID: request_id, "connection": "close" if self._late else ""}
        if self._call is not None and self._call.flight is not None:
            told[flight.HEADER] = flight.server_timing(self._call.flight)
        return {name: value for name, value in told.items() if value}
