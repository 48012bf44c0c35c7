"""ModelStreamInfer: many requests in one call, run side by side, each answered as if it were alone.

Tensors give one response for each request, in the requests' order, as Triton has it. A text gives a response for each
result, as it comes. Every response says in the parameter `triton_final_response` whether it is its request's last;
where a request's end was not known with its last result, an empty response says so to those who have asked for it
(`triton_enable_empty_final_response`) or have gone on behind an offset.

A request that fails is answered with an error_message, and the stream goes on; callers that send `triton_grpc_error:
true` in the metadata get the first failure as the call's status instead. Responses to a named text carry where it
stands, so that a caller may go on there: `millrace_offset`, `millrace_history`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable

import grpc.aio
import structlog

from millrace.errors import Exhausted, MillraceError
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse
from millrace.queue import Result
from millrace.v1.generation_pb2 import GenerateResponse
from services.frontend.access.caller import Caller
from services.frontend.border import Border
from services.frontend.call import Call, GrpcCall
from services.frontend.oip.infer import decode_infer, parse_infer, wants_empty_final
from services.frontend.oip.runs import Run, Runs
from services.frontend.oip.stream_messages import refusal, tell_position, wrap
from services.frontend.oip.text_answers import TextAnswer
from services.frontend.oip.text_tensors import TextRequest
from services.frontend.rules import Bounds
from services.frontend.status import Unexpected

MOST_OPEN = 64
"""Requests of one call that are under way; no more are read meanwhile."""
STATUS_KEY = "triton_grpc_error"
log = structlog.get_logger()


class Rpc:
    """What the requests of one call share. `admit` says who calls, as of now."""

    def __init__(self, call: GrpcCall, admit: Callable[[GrpcCall], Caller]) -> None:
        self.call, self.admit = call, admit
        self.writing = asyncio.Lock()
        self.wants_status = call.metadata(STATUS_KEY, "") == "true"
        self.unread = False
        """Nothing more can be said to the caller."""


class RequestCall(Call):
    """One request of many. Its messages wait for the others', and each has the whole time that a reader is given. The
    caller of each is asked for anew: the call may outlive its credentials."""

    def __init__(self, rpc: Rpc) -> None:
        super().__init__(rpc.call.slow_reader_s)
        self._rpc = rpc

    @property
    def remaining_s(self) -> float | None:
        return self._rpc.call.remaining_s

    async def begin(self) -> None:
        """There is no room for one job's id in the metadata of many."""

    async def send(self, message: bytes) -> None:
        async with self._rpc.writing:
            try:
                await super().send(message)
            except Exhausted:
                self._rpc.unread = True
                raise

    async def write(self, message: bytes) -> None:
        await self._rpc.call.write(message)


class Turns:
    """Who of those that answer in order is next."""

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Event, None] = {}

    def join(self) -> asyncio.Event:
        """A place, which is set when it is its turn."""
        place = asyncio.Event()
        self._waiting[place] = None
        self._call_first()
        return place

    def leave(self, place: asyncio.Event) -> None:
        """Once or more often."""
        self._waiting.pop(place, None)
        place.set()
        self._call_first()

    def _call_first(self) -> None:
        if first := next(iter(self._waiting), None):
            first.set()


class StreamInfer:
    def __init__(self, runs: Runs, bounds: Bounds, border: Border) -> None:
        self._runs, self._bounds, self._border = runs, bounds, border

    async def serve(self, requests: AsyncIterator[bytes], call: GrpcCall) -> None:
        """Until there are no more requests, and all are answered. Whatever ends the call ends them all."""
        rpc, turns, open_requests = Rpc(call, self._border.admit), Turns(), asyncio.Semaphore(MOST_OPEN)
        try:
            async with asyncio.TaskGroup() as tasks:
                async for raw in requests:
                    await open_requests.acquire()
                    place = turns.join()
                    task = tasks.create_task(self._serve_one(raw, RequestCall(rpc), rpc, turns, place))
                    task.add_done_callback(lambda _: open_requests.release())
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None

    async def _serve_one(self, raw: bytes, call: RequestCall, rpc: Rpc, turns: Turns, place: asyncio.Event) -> None:
        try:
            call.caller = rpc.admit(rpc.call)
            await self._answer(raw, call, turns, place)
        except grpc.aio.InternalError:
            raise
        except Exception as error:
            failure = self._known(error, call)
            if rpc.unread or rpc.wants_status:
                rpc.call.ended, rpc.call.job_id = call.ended, call.job_id
                raise failure from error
            self._border.count_refusal(failure)
            await place.wait()
            await call.send(refusal(self._request(raw), failure))
        finally:
            turns.leave(place)

    async def _answer(self, raw: bytes, call: Call, turns: Turns, place: asyncio.Event) -> None:
        asked = parse_infer(raw, self._bounds, attachable=True)
        run = await self._runs.resolve(call, asked)
        if run.text is None:
            answer = await self._runs.single(call, run)
            await place.wait()
            await call.send(wrap(answer, asked.message.id, final=True))
            return
        turns.leave(place)
        if run.text.stream:
            await self._send_each(call, run, run.text)
        else:
            answer = (await self._runs.whole(call, run, run.text)).SerializeToString()
            await call.send(wrap(answer, asked.message.id, final=True))

    async def _send_each(self, call: Call, run: Run, text: TextRequest) -> None:
        request, options, final = run.asked.message, run.asked.options, False

        def encode(_: Result, body: bytes) -> bytes:
            nonlocal final
            result = GenerateResponse.FromString(body)
            final = result.HasField("usage")
            answer = TextAnswer(text)
            answer.add(result)
            response = answer.response(run.model, request.id)
            if options.job_id:
                tell_position(response, result)
            return wrap(response.SerializeToString(), request.id, final=final)

        await self._runs.each(call, run, text, encode)
        if not final and (options.position.offset or wants_empty_final(request)):
            empty = ModelInferResponse(model_name=run.model.name, model_version=run.model.version)
            await call.send(wrap(empty.SerializeToString(), request.id, final=True))

    def _request(self, raw: bytes) -> ModelInferRequest:
        """As far as it can be read."""
        try:
            return decode_infer(raw, self._bounds)
        except MillraceError:
            return ModelInferRequest()

    def _known(self, error: Exception, call: Call) -> MillraceError:
        if isinstance(error, MillraceError):
            return error
        log.error("request.failed", job_id=call.job_id, exc_info=error)
        return Unexpected()
