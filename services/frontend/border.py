"""What stands around every RPC: counting, and the one place where errors become statuses."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, TypeAlias, TypeVar

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message

from millrace import tracing
from millrace.errors import Code, Exhausted, MillraceError, Unavailable
from services.frontend.access.caller import Caller
from services.frontend.access.gate import Gate
from services.frontend.call import Call, Context, GrpcCall
from services.frontend.flight import trailer
from services.frontend.metrics import Metrics
from services.frontend.reading import Reading
from services.frontend.status import DETAILS_KEY, Unexpected, to_status

T = TypeVar("T")
R = TypeVar("R")
Unary: TypeAlias = Callable[[bytes, Call], Awaitable[Message | bytes]]
Stream: TypeAlias = Callable[[bytes, Call], Awaitable[None]]
Duplex: TypeAlias = Callable[[AsyncIterator[bytes], GrpcCall], Awaitable[None]]
Method: TypeAlias = "grpc.RpcMethodHandler[bytes, bytes]"

ENDED = (("millrace-ended", "1"),)
PUSHBACK_KEY = "grpc-retry-pushback-ms"
"""Tells gRPC's own retries when to come (gRFC A6), a negative number: not at all."""
ABORT_S = 2.0
"""How long a status may wait behind messages that the caller does not read."""
STATUS_CODES = {Code(status.value[0]): status for status in grpc.StatusCode}
log = structlog.get_logger()


class Border:
    """Makes gRPC methods, which take and give serialised messages, of behaviours that know nothing of gRPC."""

    def __init__(self, metrics: Metrics, slow_reader_s: float, gate: Gate) -> None:
        self._metrics, self._gate = metrics, gate
        self._slow_reader_s = slow_reader_s
        self._readings: set[Reading] = set()

    def unary(self, name: str, behaviour: Unary, *, admin: bool = False) -> Method:
        """A behaviour that has serialised its answer already gives bytes. `admin`: only administrators may call it."""

        async def answer(request: bytes, context: Context) -> bytes:
            message = await self._serve(name, behaviour, request, context, admin)
            return message if isinstance(message, bytes) else message.SerializeToString()

        return grpc.unary_unary_rpc_method_handler(answer)

    def stream(self, name: str, behaviour: Stream) -> Method:
        async def answer(request: bytes, context: Context) -> None:
            with self._metrics.streams.track_inprogress():
                await self._serve(name, behaviour, request, context)

        return grpc.unary_stream_rpc_method_handler(answer)

    def duplex(self, name: str, behaviour: Duplex) -> Method:
        """A behaviour that reads requests for as long as they come, and sends meanwhile. A drain ends the reading; the
        caller is then told to go elsewhere, once the behaviour has done what it had read."""

        async def read(reading: Reading, call: GrpcCall) -> None:
            await behaviour(reading, call)
            if reading.stopped:
                raise Unavailable("this frontend is draining", reason="DRAINING")

        async def answer(requests: AsyncIterator[bytes], context: Context) -> None:
            reading = Reading(requests)
            self._readings.add(reading)
            try:
                with self._metrics.streams.track_inprogress():
                    await self._serve(name, read, reading, context)
            finally:
                self._readings.discard(reading)

        return grpc.stream_stream_rpc_method_handler(answer)

    def drain(self) -> None:
        """No open call reads further requests."""
        for reading in self._readings:
            reading.stop()

    def admit(self, call: GrpcCall) -> Caller:
        """Who calls, as of now: of a call that lasts it may be asked again. Raises Denied."""
        return self._gate.admit(call.credentials)

    def count_refusal(self, error: MillraceError) -> None:
        """Of a call, or of one request of a call that has many."""
        self._metrics.refused.labels(error.reason).inc()

    async def _serve(
        self,
        name: str,
        behaviour: Callable[[R, GrpcCall], Awaitable[T]],
        request: R,
        context: Context,
        admin: bool = False,
    ) -> T:
        call = GrpcCall(context, self._slow_reader_s)
        about: tracing.Attributes = {"rpc.system.name": "grpc", "rpc.method": name}
        with tracing.serving(name, call.metadata(tracing.KEY, ""), about):
            return await self._answer(name, behaviour, request, call, context, admin)

    async def _answer(
        self,
        name: str,
        behaviour: Callable[[R, GrpcCall], Awaitable[T]],
        request: R,
        call: GrpcCall,
        context: Context,
        admin: bool,
    ) -> T:
        code, reason = Code.CANCELLED, ""
        try:
            call.caller = self.admit(call)
            if admin:
                call.caller.policy.require_admin()
            answer = await behaviour(request, call)
            if call.ended:
                context.set_trailing_metadata((*ENDED, *trailer(call.flight)))
            code = Code.OK
            return answer
        except MillraceError as error:
            code, reason = error.code, error.reason
            self.count_refusal(error)
            await self._abort(call, context, error)
        except grpc.aio.InternalError as error:
            raise asyncio.CancelledError("the caller went away during a write") from error
        except Exception:
            code = Code.INTERNAL
            log.exception("call.failed", method=name, job_id=call.job_id)
            await self._abort(call, context, Unexpected())
        finally:
            self._metrics.calls.labels(name, code.name).inc()
            told: tracing.Attributes = {"rpc.response.status_code": code.name, "millrace.job_id": call.job_id}
            tracing.answered(tracing.current(), code, reason, told)

    async def _abort(self, call: Call, context: Context, error: MillraceError) -> NoReturn:
        status = to_status(error)
        ended, details = ENDED if call.ended else (), (DETAILS_KEY, status.SerializeToString())
        told = (*ended, *_pushback(call, error), *trailer(call.flight), details)
        try:
            async with asyncio.timeout(ABORT_S):
                await context.abort(STATUS_CODES[error.code], status.message, told)
        except (TimeoutError, grpc.aio.InternalError) as lost:
            raise asyncio.CancelledError("the caller takes no status") from lost


def _pushback(call: Call, error: MillraceError) -> tuple[tuple[str, str], ...]:
    """A job that has ended gives the same answer again; a refusal says when it is worth asking."""
    if call.ended:
        return ((PUSHBACK_KEY, "-1"),)
    if isinstance(error, Exhausted):
        return ((PUSHBACK_KEY, str(round(error.retry_after_s * 1000))),)
    return ()
