"""One call as the services see it: whose it is, how long it has, and what it sends."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

import grpc.aio

from millrace.errors import Exhausted
from millrace.v1.job_pb2 import Timing
from services.frontend import flight
from services.frontend.access.caller import Caller
from services.frontend.access.credentials import Credentials
from services.frontend.tracing import Trace

JOB_ID_KEY = "millrace-job-id"

Context = grpc.aio.ServicerContext[bytes, bytes]


class Call(ABC):
    """Made at a border for each request. `ended` says that the job itself has ended, which the border then tells."""

    caller: Caller
    """Set by the border, before anything else is done for the call."""

    def __init__(self, slow_reader_s: float) -> None:
        self.slow_reader_s = slow_reader_s
        self.since = time.monotonic()
        self.job_id = ""
        self.ended = False
        self.trace: Trace | None = None
        self.flight: Timing | None = None
        """The flight record of the call's job, once it has ended and where it is wanted."""

    @property
    @abstractmethod
    def remaining_s(self) -> float | None:
        """Until the caller's deadline; None where it has none."""

    @property
    def wants_flight(self) -> bool:
        """Whether the caller has asked for the job's flight record."""
        return False

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
    def credentials(self) -> Credentials:
        """What the caller's metadata say of who it is."""
        return Credentials.of(self._metadata)

    @property
    def remaining_s(self) -> float | None:
        remaining: float | None = self._context.time_remaining()
        return remaining

    @property
    def wants_flight(self) -> bool:
        return self.metadata(flight.KEY, "") == flight.WANTED

    def metadata(self, key: str, default: str) -> object:
        """What the caller's metadata say first: text, or bytes where the key ends in -bin."""
        return next((value for name, value in self._metadata if name == key), default)

    async def begin(self) -> None:
        """From here on gRPC itself retries nothing: a call with one answer begins when it has it."""
        await self._context.send_initial_metadata(((JOB_ID_KEY, self.job_id),))

    async def write(self, message: bytes) -> None:
        await self._context.write(message)

    @property
    def _metadata(self) -> Iterable[tuple[str, Any]]:
        told: Any = self._context.invocation_metadata()
        return told or ()
