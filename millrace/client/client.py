"""The client that Python programs use."""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar, Unpack

import grpc.aio

from millrace.client.follow import Place, follow
from millrace.client.frontends import Backoff, Frontend, Frontends
from millrace.client.request import GenerateOptions, PriorityName, Prompt, make_job_options, make_request
from millrace.client.results import Completion, Delta, to_completion, to_delta
from millrace.client.status import Refusal
from millrace.errors import Code
from millrace.v1.fleet_pb2 import ListModelsRequest, ListWorkersRequest, Model, Worker
from millrace.v1.fleet_pb2_grpc import FleetServiceStub
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_service_pb2 import (
    CancelJobRequest,
    GetJobRequest,
    Job,
    JobResult,
    SubmitJobRequest,
    WatchJobRequest,
)
from millrace.v1.job_service_pb2_grpc import JobServiceStub

T = TypeVar("T")
TENANT_KEY = "millrace-tenant"
UNARY_S = 5.0
"""For one attempt of a call with a single answer."""
CANCEL_S = 1.0


class AsyncClient:
    """Speaks to one or more frontends of one service.

        async with AsyncClient("127.0.0.1:8001", "127.0.0.1:8011") as client:
            async for delta in client.generate("pycode", "def fib(n):", max_tokens=64):
                print(delta.text, end="")

    A stream that loses its frontend goes on through another, or through the same one when it is back: no delta is
    repeated or left out. It gives up when nothing was received for `retry_s` seconds of trying. With `retry_exhausted`
    it also waits, within the same budget, where the service is full. All calls raise the errors of `millrace.errors`.
    """

    def __init__(
        self, *addresses: str, tenant: str = "default", retry_s: float = 30.0, retry_exhausted: bool = False
    ) -> None:
        self._frontends = Frontends(addresses)
        self._metadata = ((TENANT_KEY, tenant),)
        self._retry_s, self._retry_exhausted = retry_s, retry_exhausted

    async def __aenter__(self) -> Self:
        self._frontends.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._frontends.close()

    async def generate(
        self,
        model: str,
        prompt: Prompt,
        *,
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGenerator[Delta, None]:
        """Streams a completion as `Delta`s: `.text`, `.token_ids`, `.finish_reason`, `.offset`; `.usage` in the last.

        `job_id` names the job: the same request under the same name attaches to it. `resume_window_s` is how long the
        job is kept for this client while the connection is lost. A stream that is left before its end cancels the job.
        """
        request = make_request(model, prompt, options)
        job = make_job_options(
            job_id or uuid.uuid4().hex, resume_window_s=resume_window_s, timeout_s=timeout_s, priority=priority
        )
        request.job.CopyFrom(job)
        place = Place()

        def begin(frontend: Frontend) -> "grpc.aio.UnaryStreamCall[GenerateRequest, GenerateResponse]":
            request.job.after_offset, request.job.after_history = place.offset, place.history
            return TextGenerationServiceStub(frontend.channel).Generate(request, metadata=self._metadata)

        results = follow(self._frontends, begin, place, self._backoff(), retry_exhausted=self._retry_exhausted)
        try:
            async with aclosing(results):
                async for message in results:
                    yield to_delta(message)
        finally:
            if not (place.ended or place.refused):
                await self._abandon(job.job_id)

    async def generate_text(
        self,
        model: str,
        prompt: Prompt,
        *,
        job_id: str | None = None,
        resume_window_s: float = 15,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Completion:
        """The whole completion at once; otherwise as `generate`."""
        job_id = job_id or uuid.uuid4().hex
        stream = self.generate(
            model,
            prompt,
            job_id=job_id,
            resume_window_s=resume_window_s,
            timeout_s=timeout_s,
            priority=priority,
            **options,
        )
        return to_completion(job_id, [delta async for delta in stream])

    async def submit(
        self,
        model: str,
        prompt: Prompt,
        *,
        job_id: str | None = None,
        timeout_s: float | None = None,
        priority: PriorityName | None = None,
        **options: Unpack[GenerateOptions],
    ) -> Job:
        """Queues a generation that runs to its end, watched or not."""
        job = make_job_options(job_id or uuid.uuid4().hex, timeout_s=timeout_s, priority=priority)
        request = SubmitJobRequest(generate=make_request(model, prompt, options), job=job)
        return await self._ask(
            lambda frontend: JobServiceStub(frontend.channel).SubmitJob(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )

    async def watch(self, job_id: str, *, after_offset: int = 0, after_history: int = 0) -> AsyncGenerator[Delta, None]:
        """Streams a job's results from after_offset on. Leaving it does not cancel the job."""
        place = Place(offset=after_offset, history=after_history)

        def begin(frontend: Frontend) -> "grpc.aio.UnaryStreamCall[WatchJobRequest, JobResult]":
            request = WatchJobRequest(job_id=job_id, after_offset=place.offset, after_history=place.history)
            return JobServiceStub(frontend.channel).WatchJob(request, metadata=self._metadata)

        results = follow(self._frontends, begin, place, self._backoff(), retry_exhausted=False)
        async with aclosing(results):
            async for result in results:
                yield to_delta(result.generated)

    async def get(self, job_id: str) -> Job:
        request = GetJobRequest(job_id=job_id)
        return await self._ask(
            lambda frontend: JobServiceStub(frontend.channel).GetJob(request, metadata=self._metadata, timeout=UNARY_S)
        )

    async def cancel(self, job_id: str) -> Job:
        """Stops a job; one that has ended is left as it is."""
        return await self._ask(lambda frontend: self._cancel(frontend, job_id, UNARY_S))

    async def models(self) -> list[Model]:
        request = ListModelsRequest()
        answer = await self._ask(
            lambda frontend: FleetServiceStub(frontend.channel).ListModels(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )
        return list(answer.models)

    async def workers(self) -> list[Worker]:
        request = ListWorkersRequest()
        answer = await self._ask(
            lambda frontend: FleetServiceStub(frontend.channel).ListWorkers(
                request, metadata=self._metadata, timeout=UNARY_S
            )
        )
        return list(answer.workers)

    def _backoff(self) -> Backoff:
        return Backoff(self._retry_s)

    def _cancel(
        self, frontend: Frontend, job_id: str, timeout_s: float
    ) -> "grpc.aio.UnaryUnaryCall[CancelJobRequest, Job]":
        request = CancelJobRequest(job_id=job_id)
        return JobServiceStub(frontend.channel).CancelJob(request, metadata=self._metadata, timeout=timeout_s)

    async def _ask(self, call: Callable[[Frontend], Awaitable[T]]) -> T:
        """A call with one answer, which may be repeated: all of this service's are idempotent."""
        backoff = self._backoff()
        while True:
            frontend = self._frontends.pick()
            try:
                return await call(frontend)
            except grpc.aio.AioRpcError as failure:
                refusal = Refusal(failure)
            late = refusal.code is Code.DEADLINE_EXCEEDED and not refusal.details
            if not (refusal.lost or late):
                raise refusal.error
            frontend.failed()
            if not await backoff.wait():
                raise refusal.error

    async def _abandon(self, job_id: str) -> None:
        """Tells the service that nobody waits for the job any more; failing that, its resume window ends it."""
        try:
            async with asyncio.timeout(CANCEL_S):
                await self._cancel(self._frontends.pick(), job_id, CANCEL_S)
        except (grpc.aio.AioRpcError, TimeoutError, RuntimeError):
            pass
