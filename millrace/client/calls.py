"""How calls are made: on one frontend after another until one answers, within a budget of seconds."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import grpc.aio

from millrace.client.follow import Begin, Numbered, Place, follow
from millrace.client.frontends import Backoff, Frontend, Frontends
from millrace.client.metadata import ApiKey, Metadata
from millrace.client.status import Refusal
from millrace.client.tls import Tls
from millrace.errors import Code, Exhausted
from millrace.v1.job_service_pb2 import CancelJobRequest, Job
from millrace.v1.job_service_pb2_grpc import JobServiceStub

T = TypeVar("T")
R = TypeVar("R", bound=Numbered)
UNARY_S = 5.0
"""For one attempt of a call with a single answer that nobody has to compute."""
CANCEL_S = 1.0


class Calls:
    """One client's calls. `metadata` goes with each of them."""

    def __init__(
        self,
        addresses: tuple[str, ...],
        *,
        tenant: str | None,
        api_key: ApiKey | None = None,
        retry_s: float,
        retry_exhausted: bool,
        tls: Tls | None = None,
    ) -> None:
        self._frontends = Frontends(addresses, tls)
        self._retry_s, self._retry_exhausted = retry_s, retry_exhausted
        self.metadata = Metadata(tenant=tenant, api_key=api_key)

    def open(self) -> None:
        self._frontends.open()

    async def close(self) -> None:
        await self._frontends.close()

    async def ask(self, call: Callable[[Frontend], Awaitable[T]], *, retry_late: bool = True) -> T:
        """A call with one answer, which may be repeated: all of this service's are idempotent.

        `retry_late` says that the deadline which the call carries is that of one attempt.
        """
        backoff = Backoff(self._retry_s)
        while True:
            pause_s = 0.0
            with self._frontends.turn() as frontend:
                try:
                    answer = await call(frontend)
                except grpc.aio.AioRpcError as failure:
                    refusal = Refusal(failure)
                else:
                    frontend.problem = None
                    return answer
            error = refusal.error
            late = refusal.code is Code.DEADLINE_EXCEEDED and not refusal.details
            if refusal.lost or (late and retry_late):
                await frontend.failed(refusal.text)
                error = frontend.problem or error
                if self._frontends.hopeless:
                    raise error
            elif isinstance(error, Exhausted) and self._retry_exhausted:
                pause_s = error.retry_after_s
            else:
                raise error
            if not await backoff.wait(pause_s):
                raise error

    def follow(self, begin: Begin[R], place: Place, *, waits: bool) -> AsyncGenerator[R, None]:
        """A stream of results over as many calls as it takes. `waits`: where the service is full, if asked to."""
        retry_exhausted = waits and self._retry_exhausted
        return follow(self._frontends, begin, place, Backoff(self._retry_s), retry_exhausted=retry_exhausted)

    async def cancel(self, job_id: str) -> Job:
        return await self.ask(lambda frontend: self._cancel(frontend, job_id, UNARY_S))

    async def abandon(self, job_id: str) -> None:
        """Tells the service that nobody waits for the job any more; failing that, its resume window ends it."""
        try:
            async with asyncio.timeout(CANCEL_S):
                with self._frontends.turn() as frontend:
                    await self._cancel(frontend, job_id, CANCEL_S)
        except (grpc.aio.AioRpcError, TimeoutError, RuntimeError):
            pass

    def _cancel(
        self, frontend: Frontend, job_id: str, timeout_s: float
    ) -> "grpc.aio.UnaryUnaryCall[CancelJobRequest, Job]":
        request = CancelJobRequest(job_id=job_id)
        return JobServiceStub(frontend.channel).CancelJob(request, metadata=self.metadata, timeout=timeout_s)
