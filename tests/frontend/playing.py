"""The other parts of the service, as a test needs them: a worker without a model, frontends in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self, TypeAlias

import grpc.aio
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from millrace.queue import (
    Emission,
    Ending,
    Indexed,
    JobQueue,
    JobRef,
    Lease,
    Limits,
    ModelEntry,
    ModelState,
    ModelVersion,
    Registry,
    State,
    Verdict,
    WorkerEntry,
    connect,
)
from millrace.queue import history as running
from millrace.v1.generation_pb2 import (
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    CompletionDelta,
    GenerateRequest,
    GenerateResponse,
)
from millrace.v1.job_pb2 import JobOptions
from services.frontend.server import Frontend
from services.frontend.settings import FrontendSettings
from tests.eventually import eventually

if TYPE_CHECKING:
    from millrace.v1.generation_pb2_grpc import TextGenerationServiceAsyncStub
    from millrace.v1.job_service_pb2_grpc import JobServiceAsyncStub

Generation: TypeAlias = "TextGenerationServiceAsyncStub"
Jobs: TypeAlias = "JobServiceAsyncStub"
MODEL = ModelVersion("echo", "1")
HISTORY_TAG = b"\x39"


class Held:
    """A job that the played worker holds."""

    def __init__(self, queue: JobQueue, lease: Lease, request: GenerateRequest) -> None:
        self._queue, self.lease, self.request = queue, lease, request
        self.offset, self.history = lease.last_offset, lease.history

    async def emit(self, text: str, *, last: bool = False) -> Verdict:
        """One result with this text."""
        self.offset += 1
        delta = CompletionDelta(text=text, finish_reason=FINISH_REASON_STOP if last else FINISH_REASON_UNSPECIFIED)
        response = GenerateResponse(job_id=self.lease.ref.job_id, offset=self.offset, deltas=[delta])
        if last:
            response.usage.completion_tokens = self.offset
        body = response.SerializeToString()
        self.history = running.extend(self.history, body)
        emission = Emission(
            ref=self.lease.ref,
            token=self.lease.token,
            offset=self.offset,
            history=self.history,
            result=body + HISTORY_TAG + self.history,
            ending=Ending() if last else None,
            cost=self.offset,
        )
        return (await self._queue.emit(self.lease.ref.model, [emission]))[0]

    async def end(self, ending: Ending) -> Verdict:
        emission = Emission(ref=self.lease.ref, token=self.lease.token, ending=ending)
        return (await self._queue.emit(self.lease.ref.model, [emission]))[0]


class Worker:
    """The queue's worker side. It holds leases for a minute, so that a test never has to renew."""

    def __init__(self, redis_url: str, model: ModelVersion = MODEL) -> None:
        self.model = model
        self.redis = connect(redis_url)
        self.queue = JobQueue(self.redis, Limits(lease_ms=60_000))
        self.registry = Registry(self.redis)
        self._sequence = 0

    async def __aenter__(self) -> Self:
        await self.announce()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.redis.aclose()

    async def announce(self, state: str = "ready") -> None:
        entry = ModelEntry(
            name=self.model.name, version=self.model.version, task="text-generation", digest="", context_length=512
        )
        worker = WorkerEntry(
            worker_id=f"played-{self.model.version}",
            device="CPU",
            execution_provider="CPUExecutionProvider",
            state=state,
            index=(Indexed(name=self.model.name, version=self.model.version, state=ModelState.READY),),
            free_slots=4,
        )
        await self.registry.announce(worker, [entry])

    async def take(self, within_s: float = 5.0) -> Held:
        """The next job that waits."""
        return (await self.take_all(1, within_s))[0]

    async def take_all(self, count: int, within_s: float = 5.0) -> list[Held]:
        held: list[Held] = []

        async def enough() -> bool:
            self._sequence += 1
            taken = await self.queue.take(
                self.model, f"played-{id(self)}", self._sequence, jobs=count - len(held), cost=1e9, alone=True
            )
            for lease in taken.leases:
                payload = await self.queue.payload(lease.ref, lease.fingerprint)
                held.append(Held(self.queue, lease, GenerateRequest.FromString(payload or b"")))
            return len(held) == count

        await eventually(enough, within_s)
        return held

    async def ending(self, ref: JobRef, within_s: float = 5.0) -> Ending:
        """How the job ends."""

        async def ended() -> Ending | None:
            record = await self.queue.inspect(ref)
            return record.ending if record is not None and record.state is State.ENDED else None

        return await eventually(ended, within_s)


@asynccontextmanager
async def frontend(redis_url: str, **settings: Any) -> AsyncIterator[Frontend]:
    """A frontend in this event loop, drained at the end."""
    addresses = {"grpc_address": "127.0.0.1:0", "http_address": "127.0.0.1:0"}
    served = Frontend(FrontendSettings(redis_url=redis_url, **(addresses | {"drain_s": 0.2} | settings)))
    task = asyncio.create_task(served.run())
    ready = asyncio.create_task(served.ready.wait())
    await asyncio.wait([task, ready], timeout=10, return_when=asyncio.FIRST_COMPLETED)
    if not served.ready.is_set():
        ready.cancel()
        task.cancel()
        await task
    try:
        yield served
    finally:
        served.stop()
        await task


def request(text: str = "hello", job: JobOptions | None = None, **fields: Any) -> GenerateRequest:
    return GenerateRequest(**({"model": MODEL.name, "text": text, "job": job} | fields))


async def read(call: "grpc.aio.UnaryStreamCall[Any, GenerateResponse]") -> list[GenerateResponse]:
    """All that is left of a stream."""
    messages = []
    while isinstance(message := await call.read(), GenerateResponse):
        messages.append(message)
    return messages


def texts(messages: list[GenerateResponse]) -> list[str]:
    return [message.deltas[0].text for message in messages]


async def refusal(generation: Generation, job: JobOptions | None = None) -> str:
    """The reason for which a new call is refused; empty where it is accepted, and then cancelled."""
    call = generation.Generate(request(job=job))
    try:
        if await call.initial_metadata():
            return ""
        await call.read()
    except grpc.aio.AioRpcError as error:
        return reason(error)
    finally:
        call.cancel()
    raise AssertionError("the call has ended without a result")


def reason(error: grpc.aio.AioRpcError) -> str:
    """The reason in the error's ErrorInfo."""
    return next((info.reason for info in _details(error, ErrorInfo)), "")


def violated(error: grpc.aio.AioRpcError) -> list[str]:
    """The fields that the error's BadRequest names."""
    return [violation.field for info in _details(error, BadRequest) for violation in info.field_violations]


def trailer(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata() or ())


def _details(error: grpc.aio.AioRpcError, kind: type[Any]) -> list[Any]:
    found = []
    for detail in Status.FromString(trailer(error).get("grpc-status-details-bin", b"")).details:
        message = kind()
        if detail.Unpack(message):
            found.append(message)
    return found
