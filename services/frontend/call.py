"""One RPC as the services see it: whose it is, how long it has, and what it sends."""

import asyncio
import time
from typing import Any

import grpc.aio

from millrace.errors import Exhausted, InvalidRequest, Violation
from millrace.queue.keys import TENANT_PATTERN

TENANT_KEY = "millrace-tenant"
JOB_ID_KEY = "millrace-job-id"
DEFAULT_TENANT = "default"

Context = grpc.aio.ServicerContext[bytes, bytes]


class Call:
    """Made at the border for each RPC. `ended` says that the job itself has ended, which the trailer then tells."""

    def __init__(self, context: Context, slow_reader_s: float) -> None:
        self._context = context
        self._slow_reader_s = slow_reader_s
        self.since = time.monotonic()
        self.job_id = ""
        self.ended = False

    @property
    def tenant(self) -> str:
        """From the call's metadata. Raises InvalidRequest where it is not a tenant's name."""
        metadata: Any = self._context.invocation_metadata() or ()
        tenant = next((value for key, value in metadata if key == TENANT_KEY), DEFAULT_TENANT)
        if not isinstance(tenant, str) or not TENANT_PATTERN.fullmatch(tenant):
            raise InvalidRequest([Violation(TENANT_KEY, f"must match {TENANT_PATTERN.pattern}")])
        return tenant

    @property
    def remaining_s(self) -> float | None:
        """Until the caller's deadline; None where it has none."""
        remaining: float | None = self._context.time_remaining()
        return remaining

    async def begin(self) -> None:
        """Tells the caller the job's id, before the first result. From here on gRPC itself retries nothing: a call with
        one answer begins when it has it."""
        await self._context.send_initial_metadata(((JOB_ID_KEY, self.job_id),))

    async def send(self, message: bytes) -> None:
        """Raises Exhausted where the caller does not read."""
        try:
            async with asyncio.timeout(self._slow_reader_s):
                await self._context.write(message)
        except TimeoutError:
            text = f"nothing was read for {self._slow_reader_s:g} s"
            raise Exhausted(text, reason="SLOW_READER", retry_after_s=0.0) from None
