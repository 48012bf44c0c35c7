"""One call as the services see it: whose it is, how long it has, and what it sends."""

import asyncio
import time
from abc import ABC, abstractmethod
from typing import Any

import grpc.aio

from millrace.errors import Exhausted, InvalidRequest, Violation
from millrace.queue.keys import TENANT_PATTERN
from services.frontend.tracing import Trace

TENANT_KEY = "millrace-tenant"
JOB_ID_KEY = "millrace-job-id"
DEFAULT_TENANT = "default"

Context = grpc.aio.ServicerContext[bytes, bytes]


class Call(ABC):
    """Made at a border for each request. `ended` says that the job itself has ended, which the border then tells."""

    def __init__(self, slow_reader_s: float) -> None:
        self.slow_reader_s = slow_reader_s
        self.since = time.monotonic()
        self.job_id = ""
        self.ended = False
        self.trace: Trace | None = None

    @property
    @abstractmethod
    def tenant(self) -> str:
        """Raises InvalidRequest where it is not a tenant's name."""

    @property
    @abstractmethod
    def remaining_s(self) -> float | None:
        """Until the caller's deadline; None where it has none."""

    @abstractmethod
    async def begin(self) -> None:
        """Tells the caller the job's id, before the first result."""

    async def send(self, message: bytes) -> None:
        """Raises Exhausted where the caller does not read."""
        try:
            async with asyncio.timeout(self.slow_reader_s):
                await self.write(message)
        except TimeoutError:
            text = f"nothing was read for {self.slow_reader_s:g} s"
            raise Exhausted(text, reason="SLOW_READER", retry_after_s=0.0) from None

    @abstractmethod
    async def write(self, message: bytes) -> None:
        """Waits while the caller does not read."""


class GrpcCall(Call):
    """An RPC."""

    def __init__(self, context: Context, slow_reader_s: float) -> None:
        super().__init__(slow_reader_s)
        self._context = context

    @property
    def tenant(self) -> str:
        return check_tenant(self.metadata(TENANT_KEY, DEFAULT_TENANT))

    @property
    def remaining_s(self) -> float | None:
        remaining: float | None = self._context.time_remaining()
        return remaining

    def metadata(self, key: str, default: str) -> object:
        """What the caller's metadata say first: text, or bytes where the key ends in -bin."""
        metadata: Any = self._context.invocation_metadata() or ()
        return next((value for name, value in metadata if name == key), default)

    async def begin(self) -> None:
        """From here on gRPC itself retries nothing: a call with one answer begins when it has it."""
        await self._context.send_initial_metadata(((JOB_ID_KEY, self.job_id),))

    async def write(self, message: bytes) -> None:
        await self._context.write(message)


def check_tenant(tenant: object) -> str:
    """Raises InvalidRequest where it is not a tenant's name."""
    if not isinstance(tenant, str) or not TENANT_PATTERN.fullmatch(tenant):
        raise InvalidRequest([Violation(TENANT_KEY, f"must match {TENANT_PATTERN.pattern}")])
    return tenant
